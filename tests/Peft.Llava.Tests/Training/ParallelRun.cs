using Peft.Core;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Training;

/// <summary>Processes, here threads on the CPU, each with a tiny model of its own.</summary>
internal static class ParallelRun
{
    private static readonly Lock Making = new();

    /// <summary>A process's model and samples. Adapters start from torch's generator, which the threads share.</summary>
    public static TinyRun Make(Func<TinyRun>? make = null)
    {
        lock (Making) return make?.Invoke() ?? new TinyRun();
    }

    /// <summary>Runs a body in each process; the weights of all but the first are others at first, and have to become the first one's.</summary>
    public static IReadOnlyList<T> Of<T>(int processes, Func<IProcessGroup, TinyRun, T> body, Func<TinyRun>? make = null)
        => InProcessGroup.Run(processes, group =>
        {
            using var run = Make(make);
            if (group.Rank > 0)
            {
                using var noGrad = no_grad();
                foreach (var parameter in run.Peft.TrainableParameters()) parameter.Parameter.add_(0.25 * group.Rank);
            }
            return body(group, run);
        });

    /// <summary>All trained values, in one list.</summary>
    public static float[] Weights(TinyRun run)
    {
        using var scope = NewDisposeScope();
        return cat([.. run.Peft.TrainableParameters().Select(p => p.Parameter.detach().flatten())]).data<float>().ToArray();
    }
}
