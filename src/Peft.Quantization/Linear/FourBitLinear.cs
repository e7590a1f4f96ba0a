using Peft.Core;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Quantization;

/// <summary>
/// A frozen linear layer whose weight is stored in 4 bits. A use decodes the weight into a buffer that is shared with other layers; for
/// one input row on the CPU the product is taken straight from the packed bytes.
/// </summary>
/// <remarks>
/// Arithmetic is that of bitsandbytes' <c>Linear4bit</c>: the input and the bias are cast to the compute dtype, the forward's weight is
/// decoded straight to it, the result is cast to the input's dtype; the gradient's weight is rounded to the original weight's dtype
/// first. <c>.to(device)</c> moves everything; <c>.to(dtype)</c> casts the bias alone.
/// </remarks>
public sealed class FourBitLinear : FrozenLinear
{
#pragma warning disable IDE0044 // set by TorchSharp through reflection
    [TorchSharp.Utils.ComponentName(Name = "weight")] private Tensor _codes;
    [TorchSharp.Utils.ComponentName(Name = "weight.absmax")] private Tensor _absmax;
    [TorchSharp.Utils.ComponentName(Name = "weight.nested_absmax")] private Tensor? _nestedAbsmax;
    [TorchSharp.Utils.ComponentName(Name = "weight.nested_offset")] private Tensor? _nestedOffset;
    [TorchSharp.Utils.ComponentName(Name = "bias")] private Parameter? _bias;
#pragma warning restore IDE0044
    private readonly DecodeWorkspace _workspace;
    private readonly FourBitTable _table;

    /// <summary>Creates the layer over a packed weight.</summary>
    /// <param name="weight">The packed (out, in) weight; ownership of its tensors is taken.</param>
    /// <param name="bias">(out) or null; ownership is taken, the argument is empty afterwards.</param>
    /// <param name="computeDtype">The dtype of the products; null for that of each input.</param>
    /// <param name="workspace">The buffers to decode into, shared between layers; null for some of its own. Not owned.</param>
    /// <param name="name">The module's name.</param>
    /// <exception cref="ShapeMismatchException">The weight is no matrix, or the bias is not (out).</exception>
    /// <exception cref="UnsupportedWeightDtypeException">No such compute dtype.</exception>
    public FourBitLinear(
        PackedWeight weight, Tensor? bias = null, ScalarType? computeDtype = null, DecodeWorkspace? workspace = null, string name = nameof(FourBitLinear))
        : base(name)
    {
        ArgumentNullException.ThrowIfNull(weight);
        if (weight.Shape.Count != 2) throw new ShapeMismatchException(name + ".weight", [-1, -1], weight.Shape);
        if (bias is not null && (bias.dim() != 1 || bias.shape[0] != weight.Shape[0]))
            throw new ShapeMismatchException(name + ".bias", [weight.Shape[0]], bias.shape);
        if (computeDtype is { } compute) _ = FloatElements.KindOf(compute);
        (OutFeatures, InFeatures) = (weight.Shape[0], weight.Shape[1]);
        (QuantType, BlockSize, ComputeDtype) = (weight.Type, weight.BlockSize, computeDtype);
        _table = FourBitTable.For(weight.Type);
        _workspace = workspace ?? new DecodeWorkspace();
        OriginalDtype = weight.Dtype;
        _codes = weight.Codes;
        _absmax = weight.Absmax;
        _nestedAbsmax = weight.NestedAbsmax;
        if (weight.DoubleQuantized) _nestedOffset = tensor([weight.NestedOffset], device: weight.Codes.device).DetachFromDisposeScope();
        if (bias is not null) _bias = new Parameter(bias, requires_grad: bias.requires_grad);
        RegisterComponents();
    }

    /// <summary>Quantises a weight and creates the layer.</summary>
    /// <param name="codec">How.</param>
    /// <param name="weight">(out, in); not kept and not changed.</param>
    /// <param name="bias">(out) or null; ownership is taken.</param>
    /// <param name="computeDtype">The dtype of the products; null for that of each input.</param>
    /// <param name="workspace">The buffers to decode into; null for some of its own. Not owned.</param>
    /// <param name="name">The module's name.</param>
    /// <returns>The layer, on the weight's device.</returns>
    public static FourBitLinear Quantize(
        FourBitCodec codec, Tensor weight, Tensor? bias = null, ScalarType? computeDtype = null, DecodeWorkspace? workspace = null,
        string name = nameof(FourBitLinear))
    {
        ArgumentNullException.ThrowIfNull(codec);
        return new FourBitLinear(codec.Encode(weight, name), bias, computeDtype, workspace, name);
    }

    /// <inheritdoc/>
    public override long InFeatures { get; }

    /// <inheritdoc/>
    public override long OutFeatures { get; }

    /// <summary>The code.</summary>
    public QuantType QuantType { get; }

    /// <summary>Values per block.</summary>
    public int BlockSize { get; }

    /// <summary>Whether the block maxima are quantised too.</summary>
    public bool DoubleQuantized => _nestedAbsmax is not null;

    /// <summary>The dtype of the products; null for that of each input.</summary>
    public ScalarType? ComputeDtype { get; set; }

    /// <inheritdoc/>
    public override ScalarType WeightDtype => StandIn is null ? OriginalDtype : ScalarType.Float32;

    /// <inheritdoc/>
    public override Device StorageDevice => _codes.device;

    /// <inheritdoc/>
    public override Tensor? BiasTensor => _bias;

    /// <inheritdoc/>
    public override long StoredBytes
        => _codes.numel() + _absmax.numel() * _absmax.element_size() + (_nestedAbsmax is null ? 0 : _nestedAbsmax.numel() * 4 + 4);

    /// <summary>While adapters are merged elsewhere than into the codes: see <see cref="QuantizedMerge"/>.</summary>
    internal MergeStandIn? StandIn { get; set; }

    private ScalarType OriginalDtype { get; set; }

    private BlockScales Scales => new(_absmax, _nestedAbsmax, _nestedOffset is null ? 0f : _nestedOffset.item<float>());

    /// <summary>The stored weight, for files.</summary>
    /// <returns>Copies of the stored tensors; the caller disposes it.</returns>
    public PackedWeight ToPacked()
    {
        using var noGrad = no_grad();
        return new PackedWeight(
            _codes.clone(), _absmax.clone(), _nestedAbsmax?.clone(), Scales.NestedOffset, QuantType, BlockSize, OriginalDtype, [OutFeatures, InFeatures], GetName());
    }

    /// <inheritdoc/>
    /// <exception cref="DeviceMismatchException">The input is on another device.</exception>
    public override Tensor Apply(Tensor input)
    {
        RequireDevice(input);
        using var scope = NewDisposeScope();
        var compute = ComputeDtype ?? input.dtype;
        var x = input.to(compute);
        var bias = _bias?.to(compute);
        Tensor result;
        if (CanMultiplyFewRows(x.numel() / InFeatures))
        {
            result = MultiplyFewRows(x.contiguous(), compute, bias).view([.. input.shape[..^1], OutFeatures]);
        }
        else if (x.numel() == InFeatures && CanMultiplyPacked())
        {
            result = MultiplyPacked(x, compute, bias).view([.. input.shape[..^1], OutFeatures]);
        }
        else if (Panels(compute, compute, transposed: false) is { } panels)
        {
            result = MatrixProduct.Apply(x, panels, bias);
        }
        else
        {
            using var weight = Decode(compute, compute);
            result = nn.functional.linear(x, weight.Tensor, bias);
        }
        return result.to(input.dtype).MoveToOuterDisposeScope();
    }

    /// <inheritdoc/>
    /// <exception cref="DeviceMismatchException">The gradient is on another device.</exception>
    public override Tensor ApplyTransposed(Tensor gradOutput)
    {
        RequireDevice(gradOutput);
        using var scope = NewDisposeScope();
        var compute = ComputeDtype ?? gradOutput.dtype;
        if (Panels(OriginalDtype, compute, transposed: true) is { } panels)
            return MatrixProduct.Apply(gradOutput.to(compute), panels, null).to(gradOutput.dtype).MoveToOuterDisposeScope();
        using var weight = Decode(OriginalDtype, compute);
        return gradOutput.to(compute).matmul(weight.Tensor).to(gradOutput.dtype).MoveToOuterDisposeScope();
    }

    /// <inheritdoc/>
    public override IPanelSource? PanelsFor(ScalarType inputDtype, bool transposed)
    {
        var compute = ComputeDtype ?? inputDtype;
        return compute == inputDtype ? Panels(transposed ? OriginalDtype : compute, compute, transposed) : null;
    }

    /// <inheritdoc/>
    public override Tensor MaterializeWeight(ScalarType dtype)
    {
        using var noGrad = no_grad();
        if (StandIn?.Read(dtype) is { } other) return other;
        var target = empty([OutFeatures, InFeatures], dtype, StorageDevice).DetachFromDisposeScope();
        KernelSelection.For(StorageDevice).DecodeFourBit(_codes, Scales, _table, BlockSize, dtype, target);
        return target;
    }

    /// <inheritdoc/>
    /// <remarks>Quantised again with the same settings; the weight's dtype becomes the stored state's dtype.</remarks>
    /// <exception cref="NonFiniteWeightException">NaN or infinity in the weight.</exception>
    public override void OverwriteWeight(Tensor weight)
    {
        RequireShape(weight);
        using var noGrad = no_grad();
        if (StandIn?.Take(weight) == true) return;
        using var moved = weight.to(StorageDevice);
        using var packed = new FourBitCodec(QuantType, BlockSize, DoubleQuantized).Encode(moved, GetName());
        _codes.copy_(packed.Codes);
        _absmax.copy_(packed.Absmax);
        _nestedAbsmax?.copy_(packed.NestedAbsmax!);
        _nestedOffset?.fill_(packed.NestedOffset);
        OriginalDtype = weight.dtype;
    }

    /// <inheritdoc/>
    public override IReadOnlyList<Tensor> CopyStorage()
    {
        using var noGrad = no_grad();
        // The last tensor is empty: its dtype is the original weight's.
        Tensor?[] parts = [_codes.clone(), _absmax.clone(), _nestedAbsmax?.clone(), _nestedOffset?.clone(), empty([0], OriginalDtype)];
        return [.. parts.OfType<Tensor>().Select(t => t.DetachFromDisposeScope())];
    }

    /// <inheritdoc/>
    public override void RestoreStorage(IReadOnlyList<Tensor> copy)
    {
        ArgumentNullException.ThrowIfNull(copy);
        using var noGrad = no_grad();
        StandIn?.Forget();
        _codes.copy_(copy[0]);
        _absmax.copy_(copy[1]);
        _nestedAbsmax?.copy_(copy[2]);
        _nestedOffset?.copy_(copy[3]);
        OriginalDtype = copy[^1].dtype;
    }

    /// <summary>Statistics keep their dtype whatever the module is cast to; only the bias follows.</summary>
    protected override void _toEpilog(ScalarType? dtype, Device? device, bool non_blocking)
        => StorageMoves.To(dtype, device, _bias, moved => base._toEpilog(null, moved, non_blocking), bias =>
        {
            _bias = bias;
            ConditionallyRegisterParameter("bias", bias);
        });

    /// <summary>The weight for a packed product in <paramref name="compute"/>, its values rounded to <paramref name="through"/> and to that; null if another product is chosen.</summary>
    private unsafe FourBitPanels? Panels(ScalarType through, ScalarType compute, bool transposed)
    {
        if (_codes.device_type != DeviceType.CPU || ProductChoice.For(compute) != ProductEngine.Packed || KernelSelection.Current == KernelLevel.Reference) return null;
        if (through != compute && compute == ScalarType.BFloat16) return null;
        return new FourBitPanels(
            (byte*)CpuTensor.Pointer(_codes), SimdKernels.Pointers(Scales), OutFeatures, InFeatures, BlockSize, _table, FloatElements.KindOf(through), transposed);
    }

    private bool CanMultiplyFewRows(long rows)
        => _codes.device_type == DeviceType.CPU && KernelSelection.Current >= KernelLevel.Avx2 && (rows == 1 ? CpuLevels.Current < CpuLevel.Avx512 : ProductChoice.For(ScalarType.BFloat16) == ProductEngine.Packed)
            && FourBitFewRows.CanRun(rows, InFeatures, BlockSize);

    private unsafe Tensor MultiplyFewRows(Tensor x, ScalarType compute, Tensor? bias)
    {
        int rows = (int)(x.numel() / InFeatures);
        var (wide, target) = (x.to(ScalarType.Float32), empty([rows, OutFeatures], ScalarType.Float32));
        FourBitFewRows.Run(
            (byte*)CpuTensor.Pointer(_codes), SimdKernels.Pointers(Scales), OutFeatures, InFeatures, BlockSize, _table, FloatElements.KindOf(compute),
            (float*)CpuTensor.Pointer(wide), rows, (float*)CpuTensor.Pointer(target));
        return (bias is null ? target : target.add_(bias.to(ScalarType.Float32))).to(compute);
    }

    private bool CanMultiplyPacked()
        => InFeatures % 2 == 0 && _codes.device_type == DeviceType.CPU && KernelSelection.Current != KernelLevel.Reference;

    private Tensor MultiplyPacked(Tensor x, ScalarType compute, Tensor? bias)
    {
        var target = empty([OutFeatures], ScalarType.Float32);
        KernelSelection.For(StorageDevice).MultiplyFourBit(
            _codes, Scales, _table, BlockSize, compute, x.to(ScalarType.Float32).contiguous().view(-1), target);
        return (bias is null ? target : target + bias.to(ScalarType.Float32)).to(compute);
    }

    private DecodeWorkspace.Lease Decode(ScalarType through, ScalarType dtype)
    {
        var lease = _workspace.Rent(OutFeatures, InFeatures, dtype, StorageDevice);
        KernelSelection.For(StorageDevice).DecodeFourBit(_codes, Scales, _table, BlockSize, through, lease.Tensor);
        return lease;
    }

    private void RequireDevice(Tensor other)
    {
        ArgumentNullException.ThrowIfNull(other);
        if (other.device_type != _codes.device_type || other.device_index != _codes.device_index)
            throw new DeviceMismatchException(GetName(), StorageDevice, other.device);
    }
}
