using System.Runtime.ExceptionServices;
using Peft.Core;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>What the processes of a data-parallel training tell each other: counts, faults, gradients, first weights. Alone it does nothing.</summary>
/// <param name="group">The processes, each with the same model and another part of every batch.</param>
public sealed class GradientExchange(IProcessGroup group)
{
    /// <summary>Whether there is nobody to talk to.</summary>
    public bool Alone => group.WorldSize == 1;

    /// <summary>The sum of a number over all processes.</summary>
    /// <param name="own">This process's.</param>
    public double Sum(double own)
    {
        if (Alone) return own;
        using var value = tensor([own], ScalarType.Float64);
        group.AllReduceSum(value);
        return value.item<double>();
    }

    /// <summary>The first process's number.</summary>
    /// <param name="own">This process's; it counts in the first one only.</param>
    public double First(double own) => Sum(group.Rank == 0 ? own : 0);

    /// <summary>Whether something is so in any process.</summary>
    /// <param name="own">Whether it is in this one.</param>
    public bool Any(bool own) => Alone ? own : Sum(own ? 1 : 0) > 0;

    /// <summary>Goes on if no process has a fault; otherwise throws everywhere, so that nobody waits for a process that has ended.</summary>
    /// <param name="fault">This process's fault, or null.</param>
    /// <param name="step">The step, for the message.</param>
    /// <exception cref="ProcessGroupException">Another process has a fault.</exception>
    public void Agree(Exception? fault, int step)
    {
        bool any = Any(fault is not null);
        if (fault is not null) ExceptionDispatchInfo.Throw(fault);
        if (any) throw new ProcessGroupException(group.Rank, $"step {step}");
    }

    /// <summary>Adds the gradients of all processes, in one transfer per dtype. A gradient that is absent everywhere stays absent.</summary>
    /// <param name="parameters">The same parameters in the same order everywhere.</param>
    public void AddGradients(IReadOnlyList<NamedParameter> parameters)
    {
        ArgumentNullException.ThrowIfNull(parameters);
        if (Alone || parameters.Count == 0) return;
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var present = tensor(parameters.Select(p => p.Parameter.grad is null ? 0f : 1f).ToArray());
        group.AllReduceSum(present);
        float[] anywhere = present.data<float>().ToArray();
        foreach (var same in parameters.Where((_, i) => anywhere[i] > 0).GroupBy(p => (p.Parameter.dtype, p.Parameter.device_type)))
        {
            var members = same.ToList();
            var flat = cat([.. members.Select(p => (p.Parameter.grad ?? zeros_like(p.Parameter)).flatten())]);
            group.AllReduceSum(flat);
            long place = 0;
            foreach (var (_, parameter) in members)
            {
                long count = parameter.numel();
                var sum = flat.narrow(0, place, count).view(parameter.shape);
                if (parameter.grad is { } gradient) gradient.copy_(sum);
                else parameter.grad = sum.clone().DetachFromDisposeScope();
                place += count;
            }
        }
    }

    /// <summary>Gives all processes the first one's weights.</summary>
    /// <param name="parameters">The same parameters in the same order everywhere.</param>
    public void ShareWeights(IEnumerable<NamedParameter> parameters)
    {
        ArgumentNullException.ThrowIfNull(parameters);
        if (Alone) return;
        using var noGrad = no_grad();
        foreach (var parameter in parameters) group.Broadcast(parameter.Parameter, 0);
    }

    /// <summary>This process's part of a step: of each batch the samples from rank x size on; batches of which it has none are left out.</summary>
    /// <param name="step">The step of all processes.</param>
    /// <param name="batchSize">Samples per micro-batch and process.</param>
    public PlannedStep PartOf(PlannedStep step, int batchSize)
    {
        ArgumentNullException.ThrowIfNull(step);
        return Alone ? step : step with { MicroBatches = [.. step.MicroBatches.Select(b => b.Skip(group.Rank * batchSize).Take(batchSize).ToArray()).Where(b => b.Length > 0)] };
    }
}
