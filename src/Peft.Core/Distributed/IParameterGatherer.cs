using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>Gives the full value of a parameter of which a process may hold a part only (ZeRO-3).</summary>
public interface IParameterGatherer
{
    /// <summary>The full value.</summary>
    /// <param name="name">The parameter's name.</param>
    /// <param name="parameter">The parameter as the module holds it; not changed.</param>
    /// <returns>A fresh tensor on the CPU, detached from any dispose scope; the caller disposes it.</returns>
    Tensor Gather(string name, Parameter parameter);
}

/// <summary>Parameters that every process holds in full.</summary>
public sealed class WholeParameters : IParameterGatherer
{
    private WholeParameters()
    {
    }

    /// <summary>The only one there need be.</summary>
    public static WholeParameters Instance { get; } = new();

    /// <inheritdoc/>
    public Tensor Gather(string name, Parameter parameter)
    {
        ArgumentNullException.ThrowIfNull(parameter);
        using var noGrad = no_grad();
        return parameter.to(parameter.dtype, CPU, copy: true).DetachFromDisposeScope();
    }
}

/// <summary>
/// Parameters cut into equal flat slices, one for each process, the last one padded: the form of DeepSpeed's ZeRO stage 3. A parameter without
/// a full shape here is whole.
/// </summary>
/// <param name="group">The processes; all of them must gather the same parameters in the same order.</param>
/// <param name="fullShapes">The full shape of each parameter that is cut, by name.</param>
public sealed class FlatShards(IProcessGroup group, IReadOnlyDictionary<string, long[]> fullShapes) : IParameterGatherer
{
    /// <summary>This process's slice of a tensor.</summary>
    /// <param name="full">The full tensor; not changed.</param>
    /// <returns>A fresh flat tensor; the caller disposes it.</returns>
    public Tensor SliceOf(Tensor full)
    {
        ArgumentNullException.ThrowIfNull(full);
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        long count = full.numel(), size = (count + group.WorldSize - 1) / group.WorldSize;
        var padded = zeros(size * group.WorldSize, full.dtype, full.device);
        padded.narrow(0, 0, count).copy_(full.flatten());
        return padded.narrow(0, size * group.Rank, size).clone().DetachFromDisposeScope();
    }

    /// <inheritdoc/>
    /// <exception cref="ShapeMismatchException">The slice is not as long as the full shape asks for.</exception>
    public Tensor Gather(string name, Parameter parameter)
    {
        ArgumentNullException.ThrowIfNull(parameter);
        if (!fullShapes.TryGetValue(name, out long[]? shape)) return WholeParameters.Instance.Gather(name, parameter);
        long count = shape.Aggregate(1L, (product, side) => product * side), size = (count + group.WorldSize - 1) / group.WorldSize;
        if (parameter.numel() != size) throw new ShapeMismatchException(name, [size], parameter.shape);
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var slices = group.AllGather(parameter.detach().flatten()).Select(s => s.MoveToCurrent()).ToList();
        return cat(slices, 0).narrow(0, 0, count).view(shape).to(parameter.dtype, CPU, copy: true).DetachFromDisposeScope();
    }
}
