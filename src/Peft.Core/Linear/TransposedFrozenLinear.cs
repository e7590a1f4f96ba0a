using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>
/// A frozen linear layer whose weight is stored (in, out): GPT-2's "Conv1D" (PEFT's <c>fan_in_fan_out</c>). To all others it is a
/// <see cref="FrozenLinear"/> like any: <see cref="MaterializeWeight"/> gives (out, in).
/// </summary>
public sealed class TransposedFrozenLinear : FrozenLinear
{
#pragma warning disable IDE0044 // registered by TorchSharp through reflection
    [TorchSharp.Utils.ComponentName(Name = "weight")] private Parameter _weight;
    [TorchSharp.Utils.ComponentName(Name = "bias")] private Parameter? _bias;
#pragma warning restore IDE0044

    /// <summary>Creates the layer over given tensors.</summary>
    /// <param name="weight">(in, out); this layer takes ownership, the argument is empty afterwards.</param>
    /// <param name="bias">(out) or null; ownership is taken as well.</param>
    /// <param name="name">The module's name.</param>
    /// <exception cref="ShapeMismatchException">The weight is no matrix or the bias is not (out).</exception>
    public TransposedFrozenLinear(Tensor weight, Tensor? bias = null, string name = nameof(TransposedFrozenLinear))
        : base(name)
    {
        ArgumentNullException.ThrowIfNull(weight);
        if (weight.dim() != 2) throw new ShapeMismatchException(name + ".weight", [-1, -1], weight.shape);
        if (bias is not null && (bias.dim() != 1 || bias.shape[0] != weight.shape[1]))
            throw new ShapeMismatchException(name + ".bias", [weight.shape[1]], bias.shape);
        InFeatures = weight.shape[0];
        OutFeatures = weight.shape[1];
        _weight = new Parameter(weight, requires_grad: false);
        if (bias is not null) _bias = new Parameter(bias, requires_grad: false);
        RegisterComponents();
    }

    /// <inheritdoc/>
    public override long InFeatures { get; }

    /// <inheritdoc/>
    public override long OutFeatures { get; }

    /// <inheritdoc/>
    public override ScalarType WeightDtype => _weight.dtype;

    /// <inheritdoc/>
    public override Device StorageDevice => _weight.device;

    /// <inheritdoc/>
    public override Tensor? BiasTensor => _bias;

    internal override bool WeightIsTrained => _weight.requires_grad;

    /// <inheritdoc/>
    public override long StoredBytes => _weight.numel() * _weight.element_size();

    /// <inheritdoc/>
    public override Tensor Apply(Tensor input)
    {
        ArgumentNullException.ThrowIfNull(input);
        var product = MatrixProduct.Multiply(input, _weight);
        return _bias is null ? product : product.add_(_bias);
    }

    /// <inheritdoc/>
    public override Tensor ApplyTransposed(Tensor gradOutput) => MatrixProduct.Linear(gradOutput, _weight);

    /// <inheritdoc/>
    public override IPanelSource? PanelsFor(ScalarType inputDtype, bool transposed)
        => WeightIsTrained ? null : DensePanels.Of(_weight, inputDtype, !transposed);

    /// <inheritdoc/>
    public override Tensor MaterializeWeight(ScalarType dtype)
    {
        using var noGrad = no_grad();
        using var stored = _weight.to(dtype, copy: true);
        return stored.t().DetachFromDisposeScope();
    }

    /// <inheritdoc/>
    public override void OverwriteWeight(Tensor weight)
    {
        RequireShape(weight);
        using var noGrad = no_grad();
        using var stored = weight.t();
        _weight.copy_(stored);
    }

    /// <inheritdoc/>
    public override Tensor forward(Tensor input)
    {
        if (!WeightIsTrained) return base.forward(input);
        using var scope = NewDisposeScope();
        return MatrixProduct.Linear(input, _weight.t(), _bias).MoveToOuterDisposeScope();
    }
}
