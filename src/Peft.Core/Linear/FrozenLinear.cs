using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>
/// A frozen map <c>y = x Wᵀ + b</c>. How <c>W</c> is stored (dense, memory-mapped, 4-bit, 8-bit, sharded) is the derived class's affair
/// alone: LoRA, DoRA, merging, saving and the models are written against this type and never ask which storage it is.
/// </summary>
/// <remarks>
/// Shapes: <c>W</c> is (out, in), <c>b</c> (out), <c>x</c> (..., in), <c>y</c> (..., out).
/// A derived class implements the two products without autograd, <see cref="Apply"/> and <see cref="ApplyTransposed"/>; the autograd
/// function over them (<see cref="FrozenMatMul"/>, used by <see cref="forward"/>) keeps no activation and no decoded weight for the backward.
/// </remarks>
public abstract class FrozenLinear : nn.Module<Tensor, Tensor>
{
    /// <summary>Creates the layer.</summary>
    /// <param name="name">The module's name, as TorchSharp wants it.</param>
    protected FrozenLinear(string name)
        : base(name)
    {
    }

    /// <summary>Columns of the weight.</summary>
    public abstract long InFeatures { get; }

    /// <summary>Rows of the weight.</summary>
    public abstract long OutFeatures { get; }

    /// <summary>The dtype the weight has when it is used or materialised without a wish; that of the original weight for compressed storages.</summary>
    public abstract ScalarType WeightDtype { get; }

    /// <summary>The device that holds the weight.</summary>
    public abstract Device StorageDevice { get; }

    /// <summary>The bias (out), or null. Owned by this layer.</summary>
    public abstract Tensor? BiasTensor { get; }

    /// <summary>Bytes that the stored weight takes, statistics included, bias not.</summary>
    public abstract long StoredBytes { get; }

    /// <summary>Whether the weight itself is to get a gradient, in spite of the name: what is made for frozen weights must then not be used.</summary>
    internal virtual bool WeightIsTrained => false;

    /// <summary><c>x Wᵀ + b</c> with no autograd.</summary>
    /// <param name="input">(..., in), of a dtype this storage computes in.</param>
    /// <returns>A fresh (..., out) tensor; the caller disposes it.</returns>
    public abstract Tensor Apply(Tensor input);

    /// <summary><c>g W</c>: the gradient of the input, with no autograd.</summary>
    /// <param name="gradOutput">(..., out).</param>
    /// <returns>A fresh (..., in) tensor; the caller disposes it.</returns>
    public abstract Tensor ApplyTransposed(Tensor gradOutput);

    /// <summary>
    /// The weight as the right-hand side of a packed product, so that a layer above can add terms of its own to the sums before they are rounded.
    /// </summary>
    /// <param name="inputDtype">The dtype of the left-hand side.</param>
    /// <param name="transposed">False for <c>x Wᵀ</c>, true for <c>g W</c>.</param>
    /// <returns>Null where this storage computes its product in another way (then <see cref="Apply"/> and <see cref="ApplyTransposed"/> do).
    /// Valid while the layer lives and its storage is not replaced.</returns>
    public virtual IPanelSource? PanelsFor(ScalarType inputDtype, bool transposed) => null;

    /// <summary>The weight in full.</summary>
    /// <param name="dtype">The dtype wanted.</param>
    /// <returns>A fresh (out, in) tensor, never an alias of the storage; the caller disposes it.</returns>
    public abstract Tensor MaterializeWeight(ScalarType dtype);

    /// <summary>Stores another weight, encoding it again where the storage is compressed.</summary>
    /// <param name="weight">(out, in), floating point; not kept and not changed.</param>
    /// <exception cref="ShapeMismatchException"><paramref name="weight"/> is not (out, in).</exception>
    public abstract void OverwriteWeight(Tensor weight);

    /// <summary>A copy of the storage, for <see cref="RestoreStorage"/>; a compressed storage gives its packed tensors.</summary>
    /// <returns>Fresh tensors; the caller disposes them.</returns>
    public virtual IReadOnlyList<Tensor> CopyStorage() => [MaterializeWeight(WeightDtype)];

    /// <summary>Puts a copy of the storage back, bit for bit.</summary>
    /// <param name="copy">What <see cref="CopyStorage"/> gave; not kept and not changed.</param>
    public virtual void RestoreStorage(IReadOnlyList<Tensor> copy)
    {
        ArgumentNullException.ThrowIfNull(copy);
        OverwriteWeight(copy[0]);
    }

    /// <summary><c>x Wᵀ + b</c> with autograd towards the input (and the bias, where it is trained).</summary>
    /// <param name="input">(..., in).</param>
    /// <returns>(..., out), in the current dispose scope.</returns>
    public override Tensor forward(Tensor input) => FrozenMatMul.Call(this, input);

    /// <summary>Throws unless a weight fits this layer.</summary>
    /// <param name="weight">The weight to check.</param>
    /// <exception cref="ShapeMismatchException">It is not (out, in).</exception>
    protected void RequireShape(Tensor weight)
    {
        ArgumentNullException.ThrowIfNull(weight);
        if (weight.dim() != 2 || weight.shape[0] != OutFeatures || weight.shape[1] != InFeatures)
            throw new ShapeMismatchException(GetName(), [OutFeatures, InFeatures], weight.shape);
    }
}
