using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>A TorchSharp <see cref="Linear"/> as a storage: the same parameters, not copies, so that user-written models can carry LoRA.</summary>
public sealed class TorchLinear : FrozenLinear
{
#pragma warning disable IDE0044 // registered by TorchSharp through reflection
    [TorchSharp.Utils.ComponentName(Name = "weight")] private Parameter _weight;
    [TorchSharp.Utils.ComponentName(Name = "bias")] private Parameter? _bias;
#pragma warning restore IDE0044
    private readonly Holder _linear;

    /// <summary>Wraps a layer.</summary>
    /// <param name="linear">The layer; it stays the caller's and keeps its parameters.</param>
    public TorchLinear(Linear linear)
        : base(nameof(TorchLinear))
    {
        ArgumentNullException.ThrowIfNull(linear);
        _linear = new Holder(linear);
        _weight = linear.weight;
        _bias = linear.bias;
        RegisterComponents();
    }

    /// <inheritdoc/>
    public override long InFeatures => _weight.shape[1];

    /// <inheritdoc/>
    public override long OutFeatures => _weight.shape[0];

    /// <inheritdoc/>
    public override ScalarType WeightDtype => _weight.dtype;

    /// <inheritdoc/>
    public override Device StorageDevice => _weight.device;

    /// <inheritdoc/>
    public override Tensor? BiasTensor => _bias;

    internal override bool WeightIsTrained => _weight.requires_grad;

    /// <inheritdoc/>
    public override long StoredBytes => _weight.numel() * _weight.element_size();

    /// <summary>The wrapped layer.</summary>
    public Linear Inner => _linear.Module;

    /// <inheritdoc/>
    /// <remarks>In float32 by libtorch's operator, as the wrapped layer does: without an adapter its results stay the user's, bit for bit.</remarks>
    public override Tensor Apply(Tensor input)
        => _weight.dtype == ScalarType.Float32 ? nn.functional.linear(input, _weight, _bias) : MatrixProduct.Linear(input, _weight, _bias);

    /// <inheritdoc/>
    public override Tensor ApplyTransposed(Tensor gradOutput)
    {
        ArgumentNullException.ThrowIfNull(gradOutput);
        return MatrixProduct.Multiply(gradOutput, _weight);
    }

    /// <inheritdoc/>
    public override IPanelSource? PanelsFor(ScalarType inputDtype, bool transposed)
        => WeightIsTrained ? null : DensePanels.Of(_weight, inputDtype, transposed);

    /// <inheritdoc/>
    public override Tensor MaterializeWeight(ScalarType dtype)
    {
        using var noGrad = no_grad();
        return _weight.to(dtype, copy: true).DetachFromDisposeScope();
    }

    /// <inheritdoc/>
    public override void OverwriteWeight(Tensor weight)
    {
        RequireShape(weight);
        MappedPages.Overwrite(_weight, weight);
    }

    /// <inheritdoc/>
    public override Tensor forward(Tensor input)
        => WeightIsTrained ? MatrixProduct.Linear(input, _weight, _bias) : base.forward(input);

    /// <inheritdoc/>
    protected override void _toEpilog(ScalarType? dtype, Device? device, bool non_blocking)
    {
        // The inner layer moves its own parameters; this one takes the new ones over.
        _linear.Module.to(device ?? _weight.device, dtype ?? _weight.dtype, non_blocking);
        _weight = _linear.Module.weight;
        _bias = _linear.Module.bias;
        ConditionallyRegisterParameter("weight", _weight);
        if (_bias is not null) ConditionallyRegisterParameter("bias", _bias);
    }

    // Hides the layer from TorchSharp's search for child modules: its parameters are registered here, under this module's own names.
    private sealed record Holder(Linear Module);
}
