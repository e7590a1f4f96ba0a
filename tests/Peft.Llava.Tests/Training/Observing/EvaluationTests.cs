using Peft.Core;
using Peft.Llava;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Training;

[Collection(ProcessWideState.Name)]
public sealed class EvaluationTests
{
    [Fact]
    public void The_loss_is_the_mean_over_all_tokens_whatever_the_batches()
    {
        using var run = new TinyRun();
        var one = Evaluation.Loss(run.Model, run, 1);
        var all = Evaluation.Loss(run.Model, run, 7);
        Assert.Equal(one.Loss, all.Loss, 1e-6);
        Assert.Equal(one.Tokens, all.Tokens);
        Assert.Equal(7, all.Samples);
        Assert.Equal(Math.Exp(all.Loss), all.Perplexity);
    }

    [Fact]
    public void Losses_with_and_without_evaluations_are_identical()
    {
        var losses = new List<double[]>();
        foreach (bool evaluate in new[] { false, true })
        {
            using var run = new TinyRun(dropout: 0.3);
            var watch = new Watch();
            var evaluation = new EvaluationObserver(run, new EvaluationOptions { EverySteps = 2, Score = m => Draw() });
            using var trainer = new LLaVATrainer(run.Peft, run, run.Options with { MaxSteps = 6 }, evaluate ? [watch, evaluation] : [watch]);
            trainer.Train();
            losses.Add([.. watch.Reports.Select(r => r.Loss)]);
            if (evaluate) Assert.Equal([2, 4, 6], evaluation.Reports.Select(r => r.Step));
        }
        Assert.Equal(losses[0], losses[1]);

        // A score that draws random numbers, as sampled answers do.
        static double Draw()
        {
            using var drawn = rand(1);
            return drawn.item<float>();
        }
    }

    [Fact]
    public void Training_stops_when_nothing_gets_better_and_the_best_is_kept()
    {
        using var run = new TinyRun();
        double[] scores = [5, 3, 4, 3.05, 2, 1];
        int n = 0;
        var told = new List<EvaluationReport>();
        string best = Path.Combine(run.Output, "best");
        var evaluation = new EvaluationObserver(null, new EvaluationOptions { EverySteps = 1, Patience = 2, BestFolder = best, Score = _ => scores[n++] }, told.Add);
        using var trainer = new LLaVATrainer(run.Peft, run, run.Options with { MaxSteps = 6 }, evaluation);
        var summary = trainer.Train();
        Assert.True(summary.Stopped);
        Assert.Equal(4, summary.Steps);
        Assert.Equal([true, true, false, false], told.Select(t => t.IsBest));
        Assert.Equal(2, evaluation.Best!.Step);
        Assert.Null(evaluation.Best.Loss);
        Assert.Contains("\"global_step\": 2", File.ReadAllText(Path.Combine(best, "trainer_state.json")), StringComparison.Ordinal);
    }

    [Fact]
    public void Options_with_problems_are_refused_together()
    {
        using var run = new TinyRun();
        var evaluation = new EvaluationObserver(null, new EvaluationOptions { EverySteps = 0, BatchSize = 0, Patience = 0 });
        using var trainer = new LLaVATrainer(run.Peft, run, run.Options, evaluation);
        Assert.Equal(["EverySteps 0 is not positive", "BatchSize 0 of the evaluation is not positive", "Patience 0 is not positive; null never stops the training",
            "the evaluation has neither data nor a Score; give one of them"], Assert.Throws<TrainingOptionsException>(() => trainer.Train()).Problems);
    }

    [Fact]
    public void A_start_without_a_trainer_is_refused()
        => Assert.Equal(["no trainer is behind this training; give the observer to a LLaVATrainer"], Assert.Throws<TrainingOptionsException>(
            () => new EvaluationObserver(null, new EvaluationOptions { Score = _ => 1 }).OnStart(new TrainingStart(1, 1, 1, 0, []))).Problems);

    [Fact]
    public void A_set_without_labels_is_refused()
    {
        using var run = new TinyRun { Unsupervised = { 0, 1, 2, 3, 4, 5, 6 } };
        Assert.Equal("No sample of the evaluation set has a label. Check its answers and the length limit.",
            Assert.Throws<TrainingDataException>(() => Evaluation.Loss(run.Model, run)).Message);
        Assert.False(run.Model.training);
    }
}
