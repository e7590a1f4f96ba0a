using Peft.Core;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Training;

/// <summary>Several processes, here threads on the CPU, train as one does on the same batches.</summary>
[Collection(ProcessWideState.Name)]
public sealed class DataParallelTests
{
    private static readonly Lock Making = new();

    private sealed record Outcome(double[] Losses, double[] Norms, long[] Tokens, float[] Weights, string[] Files, int Steps);

    private static TrainingOptions Options(TinyRun run, int processes) => run.Options with
    {
        LearningRate = 2e-3, MaxSteps = 7, BatchSize = 6 / processes, AccumulationSteps = 2, SaveStrategy = SaveStrategy.Steps, SaveSteps = 3,
    };

    private static Outcome Train(IProcessGroup? group, Func<TrainingOptions, TrainingOptions>? change = null, string? resume = null, Action<string>? keep = null)
    {
        TinyRun run;
        // Adapters start from torch's generator, which the threads share.
        lock (Making) run = new TinyRun(count: 11);
        using (run)
        {
            if (group is { Rank: > 0 })
            {
                // The first process's weights count.
                using var noGrad = no_grad();
                foreach (var parameter in run.Peft.TrainableParameters()) parameter.Parameter.add_(0.25);
            }
            var watch = new Watch();
            var options = Options(run, group?.WorldSize ?? 1);
            options = change?.Invoke(options) ?? options;
            using var trainer = group is null ? new LLaVATrainer(run.Peft, run, options, watch) : new LLaVATrainer(run.Peft, run, options, group, watch);
            if (resume is not null) trainer.ResumeFrom(resume);
            trainer.Train();
            if (group is null or { Rank: 0 }) keep?.Invoke(run.Output);
            trainer.SaveModel();
            using var scope = NewDisposeScope();
            return new Outcome([.. watch.Reports.Select(r => r.Loss)], [.. watch.Reports.Select(r => r.GradNorm)], [.. watch.Reports.Select(r => r.Tokens)],
                cat([.. run.Peft.TrainableParameters().Select(p => p.Parameter.detach().flatten())]).data<float>().ToArray(),
                [.. Directory.EnumerateFileSystemEntries(run.Output).Select(f => Path.GetFileName(f)).Order()], trainer.StepsDone);
        }
    }

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
        var one = Train(null);
        var many = InProcessGroup.Run(processes, group => Train(group));
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
        var one = Train(null, o => o with { BatchSize = 2, AccumulationSteps = 1 });
        foreach (var outcome in InProcessGroup.Run(2, group => Train(group, o => o with { BatchSize = 1, AccumulationSteps = 1 }))) AssertEqual(one, outcome);
    }

    [Fact]
    public void A_run_of_two_resumes_to_the_bit()
    {
        string kept = Directory.CreateTempSubdirectory("parallel-").FullName;
        var whole = InProcessGroup.Run(2, group => Train(group, keep: output => Directory.Move(Path.Combine(output, "checkpoint-3"), Path.Combine(kept, "checkpoint-3"))));
        var resumed = InProcessGroup.Run(2, group => Train(group, resume: Path.Combine(kept, "checkpoint-3")));
        Assert.All(resumed, r => Assert.Equal(whole[0].Weights, r.Weights));
        Assert.All(resumed, r => Assert.Equal(whole[0].Losses[3..], r.Losses));
        Directory.Delete(kept, recursive: true);
    }

    [Fact]
    public void A_fault_in_one_process_ends_all_before_a_weight_moves()
    {
        var others = new List<string>();
        var e = Assert.Throws<NonFiniteLossException>(() => InProcessGroup.Run(2, group =>
        {
            TinyRun run;
            lock (Making) run = new TinyRun { Broken = { 3 } };
            using (run)
            {
                using var trainer = new LLaVATrainer(run.Peft, run, run.Options with { BatchSize = 2, Ordering = SampleOrdering.Sequential, AccumulationSteps = 1 }, group);
                try
                {
                    trainer.Train();
                }
                catch (ProcessGroupException x)
                {
                    lock (others) others.Add(x.Message);
                    Assert.Equal(0, trainer.StepsDone);
                    throw;
                }
            }
            return 0;
        }));
        Assert.Equal(["s2", "s3"], e.SampleIds);
        Assert.Equal(["Process 0 cannot go on with step 1: another process of its group has failed. Look at that process's exception, and start all of them again."], others);
    }

    [Fact]
    public void One_process_that_stops_stops_all()
    {
        var steps = InProcessGroup.Run(2, group =>
        {
            TinyRun run;
            lock (Making) run = new TinyRun();
            using (run)
            {
                using var trainer = new LLaVATrainer(run.Peft, run, run.Options with { BatchSize = 1, MaxSteps = 6 }, group, new Watch { StopAt = group.Rank == 1 ? 2 : -1 });
                return trainer.Train().Steps;
            }
        });
        Assert.Equal([2, 2], steps);
    }

    [Fact]
    public void A_cancelled_training_of_two_is_cancelled_in_both_and_saved_once()
    {
        using var source = new CancellationTokenSource();
        var checkpoints = InProcessGroup.Run(2, group =>
        {
            TinyRun run;
            lock (Making) run = new TinyRun();
            using (run)
            {
                var watch = new Watch { OnReport = r => { if (r.Step == 3 && group.Rank == 1) source.Cancel(); } };
                using var trainer = new LLaVATrainer(run.Peft, run, run.Options with { BatchSize = 1, MaxSteps = 60, SaveStrategy = SaveStrategy.Steps }, group, watch);
                Assert.Throws<TrainingCanceledException>(() => trainer.Train(source.Token));
                return TrainingCheckpoint.All(run.Output).Count;
            }
        });
        Assert.Equal([1, 0], checkpoints);
    }

    [Fact]
    public void The_mode_that_repeats_one_process_is_refused()
        => Assert.Equal(["Weighting LlavaExact repeats runs of one process, and there are 2; choose StepWeighting.SupervisedTokens"], Assert.Throws<TrainingOptionsException>(
            () => InProcessGroup.Run(2, group => Train(group, o => o with { Weighting = StepWeighting.LlavaExact }))).Problems);
}
