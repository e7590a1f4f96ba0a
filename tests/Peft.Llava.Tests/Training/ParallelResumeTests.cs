using Peft.Core;
using Peft.Testing;
using Xunit;

namespace Peft.Llava.Tests.Training;

/// <summary>A data-parallel training goes on from its checkpoint, which the first process wrote, as the unbroken one.</summary>
[Collection(ProcessWideState.Name)]
public sealed class ParallelResumeTests : IDisposable
{
    private readonly TemporaryFolder _kept = new();

    public void Dispose() => _kept.Dispose();

    private sealed record Outcome(float[] Weights, (int Step, double Loss, double Norm)[] Steps, int[] Checkpoints, string? Last);

    // 11 samples in batches of 6, one batch a step: odd steps end in the middle of an epoch, and the last process has no sample in even ones.
    private static TrainingOptions Options(TinyRun run, int processes) => run.Options with
    {
        BatchSize = 6 / processes, AccumulationSteps = 1, MaxSteps = 7, SaveStrategy = SaveStrategy.Steps, SaveSteps = 1,
    };

    private static Outcome Train(
        IProcessGroup? group, TinyRun run, string? from = null, string? keepIn = null, Func<TrainingOptions, TrainingOptions>? change = null, CancellationTokenSource? cancelAt3 = null)
    {
        var watch = new Watch { OnReport = r => { if (r.Step == 3 && group?.Rank == 1) cancelAt3?.Cancel(); } };
        var options = Options(run, group?.WorldSize ?? 1);
        options = change?.Invoke(options) ?? options;
        using var trainer = group is null ? new LLaVATrainer(run.Peft, run, options, watch) : new LLaVATrainer(run.Peft, run, options, group, watch);
        if (from is not null) trainer.ResumeFrom(from);
        if (cancelAt3 is null)
        {
            trainer.Train();
        }
        else
        {
            var e = Assert.Throws<TrainingCanceledException>(() => trainer.Train(cancelAt3.Token));
            Assert.StartsWith("The training was cancelled after 3 of 7 steps. The model has the weights of these steps; ", e.Message, StringComparison.Ordinal);
            if (group is not { Rank: > 0 }) Assert.Contains($"resume from {Path.Combine(run.Output, "checkpoint-3")}, ", e.Message, StringComparison.Ordinal);
        }
        int[] checkpoints = [.. TrainingCheckpoint.All(run.Output).Select(c => c.Step)];
        if (keepIn is not null && group is not { Rank: > 0 })
            foreach (var (_, folder) in TrainingCheckpoint.All(run.Output)) Directory.Move(folder, Path.Combine(keepIn, Path.GetFileName(folder)));
        return new Outcome(ParallelRun.Weights(run), [.. watch.Reports.Select(r => (r.Step, r.Loss, r.GradNorm))], checkpoints, Path.GetFileName(trainer.LastCheckpoint));
    }

    [Theory]
    [InlineData(2, 3, OptimizerKind.AdamW)]
    [InlineData(3, 4, OptimizerKind.Adafactor)]
    public void A_resumed_run_ends_with_the_bits_of_the_unbroken_one_in_all_processes(int processes, int from, OptimizerKind optimizer)
    {
        TrainingOptions Change(TrainingOptions o) => o with { Optimizer = optimizer };
        var make = () => new TinyRun(count: 11, dropout: 0.3);
        var whole = ParallelRun.Of(processes, (group, run) => Train(group, run, keepIn: _kept.Path, change: Change), make);
        var resumed = ParallelRun.Of(processes, (group, run) => Train(group, run, Path.Combine(_kept.Path, TrainingCheckpoint.NameOf(from)), change: Change), make);
        Assert.All(whole, w => Assert.Equal(whole[0].Weights, w.Weights));
        Assert.All(resumed, r => Assert.Equal(whole[0].Weights, r.Weights));
        Assert.All(resumed, r => Assert.Equal(whole[0].Steps[from..], r.Steps));
        // The first one writes; all know where.
        Assert.Equal([.. Enumerable.Range(1, 7)], whole[0].Checkpoints);
        Assert.All(whole.Skip(1), w => Assert.Empty(w.Checkpoints));
        Assert.All(whole, w => Assert.Equal("checkpoint-7", w.Last));
    }

    [Fact]
    public void A_run_of_one_goes_on_in_two_as_it_would_have_alone()
    {
        using var run = new TinyRun(count: 11);
        var whole = Train(null, run, keepIn: _kept.Path);
        var resumed = ParallelRun.Of(2, (group, run) => Train(group, run, Path.Combine(_kept.Path, "checkpoint-3")), () => new TinyRun(count: 11));
        Assert.All(resumed, r => Assert.All(whole.Weights.Zip(r.Weights), p => Assert.Equal(p.First, p.Second, 1e-5)));
        Assert.All(resumed, r => Assert.All(whole.Steps[3..].Zip(r.Steps), p => Assert.Equal(p.First.Loss, p.Second.Loss, 1e-5)));
        // The batch of all processes has to stay.
        var e = Assert.Throws<StateMismatchException>(() => ParallelRun.Of(2, (group, run) =>
            Train(group, run, Path.Combine(_kept.Path, "checkpoint-3"), change: o => o with { BatchSize = 2 }), () => new TinyRun(count: 11)));
        Assert.Equal(["BatchSize is 4 and was 6"], e.Problems);
    }

    [Fact]
    public void A_process_that_does_not_resume_with_the_others_is_named()
    {
        using var run = new TinyRun(count: 11);
        Train(null, run, keepIn: _kept.Path);
        var e = Assert.Throws<TrainingOptionsException>(() => ParallelRun.Of(2, (group, run) =>
            Train(group, run, group.Rank == 0 ? Path.Combine(_kept.Path, "checkpoint-3") : null), () => new TinyRun(count: 11)));
        Assert.Equal("The training settings have a problem: StepsDone is 0 in process 1 and 3 in process 0; give all processes the same options and samples, and resume all of them from "
            + "the same checkpoint or none.", e.Message);
    }

    [Fact]
    public void A_cancelled_run_is_cancelled_in_all_saved_once_and_goes_on_to_the_bit()
    {
        var make = () => new TinyRun(count: 11, dropout: 0.3);
        TrainingOptions Rarely(TrainingOptions o) => o with { SaveSteps = 100 };
        var whole = ParallelRun.Of(2, (group, run) => Train(group, run, change: Rarely), make);
        using var source = new CancellationTokenSource();
        var cancelled = ParallelRun.Of(2, (group, run) => Train(group, run, keepIn: _kept.Path, change: Rarely, cancelAt3: source), make);
        Assert.Equal([3], cancelled[0].Checkpoints);
        Assert.Empty(cancelled[1].Checkpoints);
        var resumed = ParallelRun.Of(2, (group, run) => Train(group, run, Path.Combine(_kept.Path, "checkpoint-3"), change: Rarely), make);
        Assert.All(resumed, r => Assert.Equal(whole[0].Weights, r.Weights));
        Assert.All(resumed, r => Assert.Equal(whole[0].Steps[3..], r.Steps));
    }

    [Fact]
    public void The_first_processs_metric_decides_and_its_best_weights_come_back_in_all()
    {
        // What each would find best on its own: steps 2 and 4. The second one would also have stopped after step 3.
        double[][] scores = [[0.5, 0.9, 0.1, 0.2, double.NaN], [0.9, 0.5, 0.4, 0.95, 0.1]];
        float[]?[] atBest = new float[2][];
        var outcomes = ParallelRun.Of(2, (group, run) =>
        {
            int next = 0;
            var watch = new Watch { OnReport = r => { if (r.Step == 2) atBest[group.Rank] = ParallelRun.Weights(run); } };
            var evaluation = new EvaluationOptions { Strategy = EvaluationStrategy.Steps, Steps = 1, MetricForBest = "score", LoadBestAtEnd = true, EarlyStoppingPatience = 3 };
            using var trainer = new LLaVATrainer(run.Peft, run, Options(run, 2) with { MaxSteps = 5, SaveStrategy = SaveStrategy.None, Evaluation = evaluation }, group, watch)
            {
                Evaluation = new EvaluationSource { Scores = new Dictionary<string, Func<LlavaModel, CancellationToken, double>> { ["score"] = (_, _) => scores[group.Rank][next++] } },
            };
            var summary = trainer.Train();
            Assert.Equal((2, 0.9, 5), (summary.Best!.Step, summary.Best.Metric, summary.Steps));
            return (Weights: ParallelRun.Weights(run), Checkpoints: TrainingCheckpoint.All(run.Output).Select(c => c.Step).ToArray());
        }, () => new TinyRun(count: 11));
        Assert.Equal(atBest[0], atBest[1]);
        Assert.All(outcomes, o => Assert.Equal(atBest[0], o.Weights));
        Assert.Equal([1, 2], outcomes[0].Checkpoints);
        Assert.Empty(outcomes[1].Checkpoints);
    }
}
