using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>
/// The plain storage: an (out, in) floating-point tensor, which may be memory-mapped from a checkpoint. Frozen unless its weight is told
/// to require a gradient (full fine-tuning); then it is an ordinary linear layer.
/// </summary>
public sealed class DenseFrozenLinear : FrozenLinear
{
#pragma warning disable IDE0044, CA1823 // registered by TorchSharp through reflection
    [TorchSharp.Utils.ComponentName(Name = "weight")] private Parameter _weight;
    [TorchSharp.Utils.ComponentName(Name = "bias")] private Parameter? _bias;
#pragma warning restore IDE0044, CA1823

    /// <summary>Creates the layer over given tensors.</summary>
    /// <param name="weight">(out, in); this layer takes ownership, the argument is empty afterwards.</param>
    /// <param name="bias">(out) or null; ownership is taken as well.</param>
    /// <param name="name">The module's name.</param>
    /// <exception cref="ShapeMismatchException">The bias is not (out).</exception>
    public DenseFrozenLinear(Tensor weight, Tensor? bias = null, string name = nameof(DenseFrozenLinear))
        : base(name)
    {
        ArgumentNullException.ThrowIfNull(weight);
        if (weight.dim() != 2) throw new ShapeMismatchException(name + ".weight", [-1, -1], weight.shape);
        if (bias is not null && (bias.dim() != 1 || bias.shape[0] != weight.shape[0]))
            throw new ShapeMismatchException(name + ".bias", [weight.shape[0]], bias.shape);
        OutFeatures = weight.shape[0];
        InFeatures = weight.shape[1];
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

    /// <summary>The stored weight (out, in) itself; owned by this layer.</summary>
    public Parameter Weight => _weight;

    /// <inheritdoc/>
    public override Tensor Apply(Tensor input)
    {
        ArgumentNullException.ThrowIfNull(input);
        return FewRowsProduct.CanRun(input, _weight) ? FewRowsProduct.Run(input, _weight, _bias) : MatrixProduct.Linear(input, _weight, _bias);
    }

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
}
