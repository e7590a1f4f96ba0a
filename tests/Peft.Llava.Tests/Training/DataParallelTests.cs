using Peft.Core;
using Xunit;

namespace Peft.Llava.Tests.Training;

/// <summary>Several processes, here threads on the CPU, train as one does on the same batches.</summary>
[Collection(ProcessWideState.Name)]
public sealed class DataParallelTests
{
    private sealed record Outcome(double[] Losses, double[] Norms, long[] Tokens, float[] Weights, string[] Files);

    private static TrainingOptions Options(TinyRun run, int processes) => run.Options with
    {
        LearningRate = 2e-3, MaxSteps = 7, BatchSize = 6 / processes, AccumulationSteps = 2, SaveStrategy = SaveStrategy.Steps, SaveSteps = 3,
    };

    private static Outcome Train(IProcessGroup? group, TinyRun run, Func<TrainingOptions, TrainingOptions>? change = null)
    {
        var watch = new Watch();
        var options = Options(run, group?.WorldSize ?? 1);
        options = change?.Invoke(options) ?? options;
        using var trainer = group is null ? new LLaVATrainer(run.Peft, run, options, watch) : new LLaVATrainer(run.Peft, run, options, group, watch);
        trainer.Train();
        trainer.SaveModel();
        return new Outcome([.. watch.Reports.Select(r => r.Loss)], [.. watch.Reports.Select(r => r.GradNorm)], [.. watch.Reports.Select(r => r.Tokens)], ParallelRun.Weights(run),
            [.. Directory.EnumerateFileSystemEntries(run.Output).Select(f => Path.GetFileName(f)).Order()]);
    }

    private static Outcome Alone(Func<TrainingOptions, TrainingOptions>? change = null)
    {
        using var run = Make();
        return Train(null, run, change);
    }

    private static IReadOnlyList<Outcome> Together(int processes, Func<TrainingOptions, TrainingOptions>? change = null)
        => ParallelRun.Of(processes, (group, run) => Train(group, run, change), Make);

    private static TinyRun Make() => new(count: 11);

    private static void AssertEqual(Outcome one, Outcome many)
    {
        Assert.Equal(one.Tokens, many.Tokens);
        Assert.Equal(one.Losses.Length, many.Losses.Length);
        Assert.All(one.Losses.Zip(many.Losses), p => Assert.Equal(p.First, p.Second, 1e-5));
        Assert.All(one.Norms.Zip(many.Norms), p => Assert.Equal(p.First, p.Second, 1e-5 * Math.Max(1, p.First)));
        Assert.All(one.Weights.Zip(many.Weights), p => Assert.Equal(p.First, p.Second, 1e-5));
    }

    // 11 samples in batches of 6: the second batch of an epoch gives the last process fewer samples or none, and some parts hold no image.
    [Theory]
    [InlineData(2)]
    [InlineData(3)]
    public void Processes_with_a_part_each_are_as_one_with_all(int processes)
    {
        var one = Alone();
        var many = Together(processes);
        foreach (var outcome in many) AssertEqual(one, outcome);
        Assert.All(many, m => Assert.Equal(many[0].Weights, m.Weights));
        Assert.All(many, m => Assert.Equal(many[0].Losses, m.Losses));
        Assert.Equal(one.Files, many[0].Files);
        Assert.Contains("checkpoint-6", many[0].Files);
        Assert.All(many.Skip(1), m => Assert.Empty(m.Files));
    }

    [Fact]
    public void Two_of_one_sample_are_as_one_of_two()
    {
        var one = Alone(o => o with { BatchSize = 2, AccumulationSteps = 1 });
        foreach (var outcome in Together(2, o => o with { BatchSize = 1, AccumulationSteps = 1 })) AssertEqual(one, outcome);
    }

    [Fact]
    public void One_process_that_stops_stops_all()
    {
        var steps = ParallelRun.Of(2, (group, run) =>
        {
            using var trainer = new LLaVATrainer(run.Peft, run, run.Options with { BatchSize = 1, MaxSteps = 6 }, group, new Watch { StopAt = group.Rank == 1 ? 2 : -1 });
            return trainer.Train().Steps;
        });
        Assert.Equal([2, 2], steps);
    }

    [Fact]
    public void The_mode_that_repeats_one_process_is_refused()
        => Assert.Equal(["Weighting LlavaExact repeats runs of one process, and there are 2; choose StepWeighting.SupervisedTokens"], Assert.Throws<TrainingOptionsException>(
            () => Together(2, o => o with { Weighting = StepWeighting.LlavaExact })).Problems);
}
