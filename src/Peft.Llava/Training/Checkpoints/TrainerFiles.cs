using Peft.Core;
using Peft.Quantization;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>
/// The files that transformers' Trainer resumes from, beside our own: <c>optimizer.pt</c> and <c>scheduler.pt</c> as <c>torch.save</c> writes the states of torch's,
/// transformers' and bitsandbytes' optimizers, and <c>rng_state.pth</c>. They hold plain containers and tensors alone, which <c>weights_only=True</c> reads.
/// </summary>
internal static class TrainerFiles
{
    public const string Optimizer = "optimizer.pt";

    public const string Scheduler = "scheduler.pt";

    public const string Random = "rng_state.pth";

    private const string NestedState = "__bnb_optimizer_quant_state__";

    /// <summary>Writes all three into a checkpoint; of an optimizer that has no counterpart there, the random states alone.</summary>
    /// <param name="folder">The checkpoint.</param>
    /// <param name="optimizer">The optimizer, its groups at the rates of the next step.</param>
    /// <param name="options">The options.</param>
    /// <param name="scheduled">How far the schedule has gone.</param>
    /// <param name="order">The stream that the order of samples is drawn from.</param>
    /// <param name="orderOf">Where a parameter stands in the peer's model, by its name; equal places keep our order.</param>
    public static void Write(string folder, TrainingOptimizer optimizer, TrainingOptions options, int scheduled, TorchRandom order, Func<string, int> orderOf)
    {
        using var scope = NewDisposeScope();
        if (StateOf(optimizer, options, orderOf) is { } state)
        {
            PickleWriter.WriteObject(Path.Combine(folder, Optimizer), state);
            PickleWriter.WriteObject(Path.Combine(folder, Scheduler), ScheduleOf(optimizer, options, scheduled));
        }
        PickleWriter.WriteObject(Path.Combine(folder, Random), RandomOf(options.Seed, order));
    }

    private static PickleDictionary? StateOf(TrainingOptimizer optimizer, TrainingOptions o, Func<string, int> orderOf)
    {
        var groups = optimizer.Groups.Select(g => g.Parameters.OrderBy(p => orderOf(p.Name)).ToList()).ToList();
        var names = groups.SelectMany(g => g).Select(p => p.Name).ToList();
        IEnumerable<(string Key, object? Value)>? settings = o.Optimizer switch
        {
            OptimizerKind.AdamW => [("amsgrad", false), ("maximize", false), ("foreach", null), ("capturable", false), ("differentiable", false), ("fused", null), ("decoupled_weight_decay", true)],
            OptimizerKind.AdamWTransformers => [("correct_bias", true)],
            OptimizerKind.AdamW8Bit or OptimizerKind.PagedAdamW8Bit => [("alpha", 0.0), ("t_alpha", null), ("t_beta3", null)],
            OptimizerKind.Lion8Bit => [],
            _ => null,
        };
        if (settings is null) return null;
        var written = new List<object?>();
        int next = 0;
        foreach (var (group, parameters) in optimizer.Groups.Zip(groups))
        {
            written.Add(Dictionary(
            [
                ("weight_decay", group.WeightDecay), ("lr", group.Rate), ("betas", new PickleTuple([o.AdamBeta1, o.AdamBeta2])),
                ("eps", o.Optimizer == OptimizerKind.Lion8Bit ? 0.0 : o.AdamEpsilon), .. settings, ("initial_lr", group.BaseRate),
                ("params", parameters.Select(_ => (object?)(long)next++).ToList()),
            ]));
        }
        var states = optimizer is EightBitTrainingOptimizer eight ? EightBit(eight, names) : ThirtyTwoBit(optimizer, names, asTensor: o.Optimizer == OptimizerKind.AdamW);
        return Dictionary([("state", states), ("param_groups", written)]);
    }

    private static PickleDictionary ThirtyTwoBit(TrainingOptimizer optimizer, List<string> names, bool asTensor)
    {
        var state = optimizer.State;
        var states = new List<KeyValuePair<object, object?>>();
        for (int i = 0; i < names.Count; i++)
        {
            if (!state.TryGetValue($"step/{names[i]}", out var step)) continue;
            object count = asTensor ? step.reshape([]) : (object)(long)step.item<float>();
            states.Add(new((long)i, Dictionary([("step", count), .. ((string[])["exp_avg", "exp_avg_sq"]).Select(kind => (kind, (object?)state[$"{kind}/{names[i]}"]))])));
        }
        return new PickleDictionary(states);
    }

    private static PickleDictionary EightBit(EightBitTrainingOptimizer optimizer, List<string> names)
    {
        string[] kinds = ["state1", "qmap1", "state2", "qmap2", "absmax1", "absmax2"];
        var places = names.Select((name, i) => (name, i)).ToDictionary(p => p.name, p => p.i, StringComparer.Ordinal);
        var states = optimizer.StateDict().Select(s => (Index: (long)places[optimizer.NameOf(s.Index)], s.Step, s.Tensors)).OrderBy(s => s.Index);
        return new PickleDictionary(states.Select(s => new KeyValuePair<object, object?>(s.Index, Dictionary(
        [
            ("step", (long)s.Step), (NestedState, Dictionary(kinds.Where(s.Tensors.ContainsKey).Select(kind => (kind, (object?)s.Tensors[kind])))),
        ]))));
    }

    private static PickleDictionary ScheduleOf(TrainingOptimizer optimizer, TrainingOptions options, int scheduled)
    {
        // The one schedule that is a plain function there has no state; the others are partials with an empty one.
        object? Lambda() => options.Schedule == ScheduleKind.Constant ? null : new PickleDictionary();
        return Dictionary(
        [
            ("base_lrs", optimizer.Groups.Select(g => (object?)g.BaseRate).ToList()), ("last_epoch", (long)scheduled), ("_step_count", scheduled + 1L),
            ("_is_initial", false), ("_get_lr_called_within_step", false), ("_last_lr", optimizer.Groups.Select(g => (object?)g.Rate).ToList()),
            ("lr_lambdas", optimizer.Groups.Select(_ => Lambda()).ToList()),
        ]);
    }

    /// <summary>
    /// torch's generator as it stands in a run of LLaVA's, which draws the order of samples from it; Python's and numpy's as their seeds leave them, which no step
    /// draws from. numpy takes its words as plain numbers too, and these need no class that a reader would have to allow.
    /// </summary>
    private static PickleDictionary RandomOf(long seed, TorchRandom order) => Dictionary(
    [
        ("python", new PickleTuple([3L, Words(MersenneState.OfPython(seed)), null])),
        ("numpy", new PickleTuple(["MT19937", Words(new TorchRandom(seed).State.Take(MersenneState.Size)), (long)MersenneState.Size, 0L, 0.0])),
        ("cpu", tensor(MersenneState.ToTorch(seed, order))),
    ]);

    private static PickleTuple Words(IEnumerable<uint> words) => new([.. words.Select(w => (object?)(long)w)]);

    private static PickleDictionary Dictionary(IEnumerable<(string Key, object? Value)> items)
        => new(items.Select(i => new KeyValuePair<object, object?>(i.Key, i.Value)));
}
