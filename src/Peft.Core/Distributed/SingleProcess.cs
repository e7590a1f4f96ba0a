using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>One process alone: every operation gives back what it got.</summary>
public sealed class SingleProcess : IProcessGroup
{
    private SingleProcess()
    {
    }

    /// <summary>The only one there need be.</summary>
    public static SingleProcess Instance { get; } = new();

    /// <inheritdoc/>
    public int Rank => 0;

    /// <inheritdoc/>
    public int WorldSize => 1;

    /// <inheritdoc/>
    public void AllReduceSum(Tensor tensor)
    {
    }

    /// <inheritdoc/>
    public IReadOnlyList<Tensor> AllGather(Tensor tensor) => [Copy(tensor)];

    /// <inheritdoc/>
    public void Broadcast(Tensor tensor, int source) => ArgumentOutOfRangeException.ThrowIfNotEqual(source, 0);

    /// <inheritdoc/>
    public Tensor ReduceScatterSum(IReadOnlyList<Tensor> tensors)
    {
        ArgumentNullException.ThrowIfNull(tensors);
        ArgumentOutOfRangeException.ThrowIfNotEqual(tensors.Count, 1, nameof(tensors));
        return Copy(tensors[0]);
    }

    /// <inheritdoc/>
    public void Barrier()
    {
    }

    private static Tensor Copy(Tensor tensor)
    {
        ArgumentNullException.ThrowIfNull(tensor);
        using var noGrad = no_grad();
        return tensor.clone().DetachFromDisposeScope();
    }
}
