using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>The processes that train together. Every process calls the same operations in the same order.</summary>
public interface IProcessGroup
{
    /// <summary>This process's number, from 0.</summary>
    int Rank { get; }

    /// <summary>How many processes there are.</summary>
    int WorldSize { get; }

    /// <summary>Adds a tensor over all processes, in place.</summary>
    /// <param name="tensor">Of the same shape and dtype everywhere.</param>
    void AllReduceSum(Tensor tensor);

    /// <summary>Collects a tensor from all processes.</summary>
    /// <param name="tensor">Of the same shape and dtype everywhere; not changed.</param>
    /// <returns>Fresh tensors, one for each process, by rank; the caller disposes them.</returns>
    IReadOnlyList<Tensor> AllGather(Tensor tensor);

    /// <summary>Overwrites a tensor by that of one process.</summary>
    /// <param name="tensor">Of the same shape and dtype everywhere.</param>
    /// <param name="source">The rank whose values are taken.</param>
    void Broadcast(Tensor tensor, int source);

    /// <summary>Adds tensors over all processes and gives each process one slice of the sum.</summary>
    /// <param name="tensors">One for each process, all of the same shape; not changed.</param>
    /// <returns>A fresh tensor: the sum of all processes' tensor number <see cref="Rank"/>; the caller disposes it.</returns>
    Tensor ReduceScatterSum(IReadOnlyList<Tensor> tensors);

    /// <summary>Waits until all processes have come here.</summary>
    void Barrier();
}
