using Peft.Core;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Quantization;

/// <summary>
/// A frozen linear layer stored as row-wise int8 and computed as LLM.int8 does (Dettmers et al., 2022): the input's rows are quantised to
/// int8, the product is taken in integers, and the columns with outliers are multiplied in the input's dtype.
/// </summary>
/// <remarks>
/// The integer path is used in training too, as bitsandbytes does on a GPU (its CPU code skips it there). The gradient is taken with the
/// decoded weight in the gradient's dtype. <c>.to(device)</c> moves everything; <c>.to(dtype)</c> casts the bias alone.
/// </remarks>
public sealed class Int8Linear : FrozenLinear
{
    /// <summary>bitsandbytes' default threshold.</summary>
    public const float DefaultThreshold = 6f;

#pragma warning disable IDE0044 // set by TorchSharp through reflection
    [TorchSharp.Utils.ComponentName(Name = "weight")] private Tensor _codes;
    [TorchSharp.Utils.ComponentName(Name = "SCB")] private Tensor _absmax;
    [TorchSharp.Utils.ComponentName(Name = "bias")] private Parameter? _bias;
#pragma warning restore IDE0044
    private readonly DecodeWorkspace _workspace;

    /// <summary>Creates the layer over codes.</summary>
    /// <param name="codes">(out, in) int8; ownership is taken.</param>
    /// <param name="absmax">(out) fp32 row maxima; ownership is taken.</param>
    /// <param name="bias">(out) or null; ownership is taken, the argument is empty afterwards.</param>
    /// <param name="threshold">From which magnitude on an input is an outlier; 0 for none.</param>
    /// <param name="weightDtype">The dtype of the original weight.</param>
    /// <param name="workspace">The buffers to decode into, shared between layers; null for some of its own. Not owned.</param>
    /// <param name="name">The module's name.</param>
    /// <exception cref="QuantStateException">The codes or maxima do not fit.</exception>
    /// <exception cref="ShapeMismatchException">The bias is not (out).</exception>
    public Int8Linear(
        Tensor codes, Tensor absmax, Tensor? bias = null, float threshold = DefaultThreshold, ScalarType weightDtype = ScalarType.Float16,
        DecodeWorkspace? workspace = null, string name = nameof(Int8Linear))
        : base(name)
    {
        ArgumentNullException.ThrowIfNull(codes);
        ArgumentNullException.ThrowIfNull(absmax);
        if (codes.dtype != ScalarType.Int8 || codes.dim() != 2)
            throw new QuantStateException(name, $"the codes are {codes.dtype} ({string.Join(", ", codes.shape)}), expected Int8 (out, in).");
        if (absmax.dtype != ScalarType.Float32 || absmax.numel() != codes.shape[0])
            throw new QuantStateException(name, $"SCB is {absmax.dtype} with {absmax.numel()} entries, expected Float32 with {codes.shape[0]}.");
        if (bias is not null && (bias.dim() != 1 || bias.shape[0] != codes.shape[0]))
            throw new ShapeMismatchException(name + ".bias", [codes.shape[0]], bias.shape);
        (OutFeatures, InFeatures, Threshold, OriginalDtype) = (codes.shape[0], codes.shape[1], threshold, weightDtype);
        _workspace = workspace ?? new DecodeWorkspace();
        _codes = codes.DetachFromDisposeScope();
        _absmax = absmax.DetachFromDisposeScope();
        if (bias is not null) _bias = new Parameter(bias, requires_grad: bias.requires_grad);
        RegisterComponents();
    }

    /// <summary>Quantises a weight and creates the layer.</summary>
    /// <param name="weight">(out, in); not kept and not changed.</param>
    /// <param name="bias">(out) or null; ownership is taken.</param>
    /// <param name="threshold">From which magnitude on an input is an outlier; 0 for none.</param>
    /// <param name="workspace">The buffers to decode into; null for some of its own. Not owned.</param>
    /// <param name="name">The module's name.</param>
    /// <returns>The layer, on the weight's device.</returns>
    public static Int8Linear Quantize(
        Tensor weight, Tensor? bias = null, float threshold = DefaultThreshold, DecodeWorkspace? workspace = null, string name = nameof(Int8Linear))
    {
        ArgumentNullException.ThrowIfNull(weight);
        var (codes, absmax) = RowwiseInt8Codec.EncodeWeight(weight, name);
        return new Int8Linear(codes, absmax, bias, threshold, weight.dtype, workspace, name);
    }

    /// <inheritdoc/>
    public override long InFeatures { get; }

    /// <inheritdoc/>
    public override long OutFeatures { get; }

    /// <summary>From which magnitude on an input is an outlier; 0 for none.</summary>
    public float Threshold { get; set; }

    /// <summary>The factor by which integer products become floating point again; exact unless bitsandbytes' figures are to be repeated.</summary>
    public Int8Rescaling Rescaling { get; set; }

    /// <inheritdoc/>
    public override ScalarType WeightDtype => StandIn is null ? OriginalDtype : ScalarType.Float32;

    /// <inheritdoc/>
    public override Device StorageDevice => _codes.device;

    /// <inheritdoc/>
    public override Tensor? BiasTensor => _bias;

    /// <inheritdoc/>
    public override long StoredBytes => _codes.numel() + _absmax.numel() * 4;

    /// <summary>(out, in) int8 codes; owned by this layer.</summary>
    public Tensor Codes => _codes;

    /// <summary>(out) fp32 row maxima; owned by this layer.</summary>
    public Tensor RowMaxima => _absmax;

    /// <summary>While adapters are merged elsewhere than into the codes: see <see cref="QuantizedMerge"/>.</summary>
    internal MergeStandIn? StandIn { get; set; }

    private ScalarType OriginalDtype { get; set; }

    /// <inheritdoc/>
    /// <exception cref="DeviceMismatchException">The input is on another device.</exception>
    /// <exception cref="ActivationRangeException">With threshold 0, an input that fp16 cannot hold.</exception>
    public override Tensor Apply(Tensor input)
    {
        RequireDevice(input);
        using var scope = NewDisposeScope();
        var rows = input.reshape(-1, InFeatures);
        var (codes, absmax, outliers) = RowwiseInt8Codec.Encode(rows, Threshold);
        if (!absmax.isfinite().all().ToBoolean()) throw new ActivationRangeException(GetName(), Threshold);
        var result = Int8MatMul.MultiplyRescaled(codes, _codes, absmax, _absmax, _bias, input.dtype, Rescaling);
        if (outliers is not null && outliers.numel() > 0)
        {
            var inputPart = rows.index_select(1, outliers);
            var weightPart = RowwiseInt8Codec.Decode(_codes.index_select(1, outliers), _absmax, input.dtype);
            MatrixProduct.AddLinear(result, inputPart, weightPart);
        }
        return result.view([.. input.shape[..^1], OutFeatures]).MoveToOuterDisposeScope();
    }

    /// <inheritdoc/>
    /// <exception cref="DeviceMismatchException">The gradient is on another device.</exception>
    public override Tensor ApplyTransposed(Tensor gradOutput)
    {
        RequireDevice(gradOutput);
        if (PanelsFor(gradOutput.dtype, transposed: true) is { } panels) return MatrixProduct.Apply(gradOutput, panels, null);
        using var weight = _workspace.Rent(OutFeatures, InFeatures, gradOutput.dtype, StorageDevice);
        KernelSelection.For(StorageDevice).DecodeRows(_codes, _absmax, scaleFirst: true, weight.Tensor);
        return gradOutput.matmul(weight.Tensor);
    }

    /// <inheritdoc/>
    /// <remarks>The forward is a product of integers.</remarks>
    public override unsafe IPanelSource? PanelsFor(ScalarType inputDtype, bool transposed)
    {
        if (!transposed || _codes.device_type != DeviceType.CPU || ProductChoice.For(inputDtype) != ProductEngine.Packed || KernelSelection.Current == KernelLevel.Reference) return null;
        return new Int8Panels(
            (sbyte*)CpuTensor.Pointer(_codes), (float*)CpuTensor.Pointer(_absmax), OutFeatures, InFeatures, FloatElements.KindOf(inputDtype), transposed);
    }

    /// <inheritdoc/>
    public override Tensor MaterializeWeight(ScalarType dtype)
        => StandIn?.Read(dtype) ?? RowwiseInt8Codec.Decode(_codes, _absmax, dtype).DetachFromDisposeScope();

    /// <inheritdoc/>
    /// <remarks>Cast to fp16 and quantised again.</remarks>
    /// <exception cref="NonFiniteWeightException">NaN, infinity or a magnitude above fp16's in the weight.</exception>
    public override void OverwriteWeight(Tensor weight)
    {
        RequireShape(weight);
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        if (StandIn?.Take(weight) == true) return;
        var (codes, absmax) = RowwiseInt8Codec.EncodeWeight(weight.to(StorageDevice), GetName());
        _codes.copy_(codes);
        _absmax.copy_(absmax);
    }

    /// <inheritdoc/>
    public override IReadOnlyList<Tensor> CopyStorage()
    {
        using var noGrad = no_grad();
        return [_codes.clone().DetachFromDisposeScope(), _absmax.clone().DetachFromDisposeScope()];
    }

    /// <inheritdoc/>
    public override void RestoreStorage(IReadOnlyList<Tensor> copy)
    {
        ArgumentNullException.ThrowIfNull(copy);
        using var noGrad = no_grad();
        StandIn?.Forget();
        _codes.copy_(copy[0]);
        _absmax.copy_(copy[1]);
    }

    /// <summary>Statistics keep their dtype whatever the module is cast to; only the bias follows.</summary>
    protected override void _toEpilog(ScalarType? dtype, Device? device, bool non_blocking)
        => StorageMoves.To(dtype, device, _bias, moved => base._toEpilog(null, moved, non_blocking), bias =>
        {
            _bias = bias;
            ConditionallyRegisterParameter("bias", bias);
        });

    private void RequireDevice(Tensor other)
    {
        ArgumentNullException.ThrowIfNull(other);
        if (other.device_type != _codes.device_type || other.device_index != _codes.device_index)
            throw new DeviceMismatchException(GetName(), StorageDevice, other.device);
    }
}
