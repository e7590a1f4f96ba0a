using System.Text.Json;
using Peft.Core;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Training;

/// <summary>Evaluation as part of a training: when, what decides, what is kept, when it stops.</summary>
[Collection(ProcessWideState.Name)]
public sealed class TrainerEvaluationTests
{
    private static readonly EvaluationOptions EachStep = new() { Strategy = EvaluationStrategy.Steps, Steps = 1, BatchSize = 3 };

    private static EvaluationSource Scores(params double[] values)
    {
        int next = 0;
        return new EvaluationSource { Scores = new Dictionary<string, Func<LlavaModel, CancellationToken, double>> { ["score"] = (_, _) => values[next++] } };
    }

    private static Dictionary<string, Func<LlavaModel, CancellationToken, double>> Named(string name, Func<double> score) => new() { [name] = (_, _) => score() };

    [Fact]
    public void The_loss_is_that_of_the_data_at_that_step_and_the_run_is_the_same_without()
    {
        var losses = new List<double[]>();
        foreach (bool evaluate in new[] { false, true })
        {
            using var run = new TinyRun(dropout: 0.3);
            var own = new List<(int Step, double Loss)>();
            var watch = new Watch { OnReport = r => own.Add((r.Step, Evaluation.Loss(run.Model, run).Loss)) };
            var options = run.Options with { MaxSteps = 7, Evaluation = evaluate ? EachStep with { Steps = 3 } : new EvaluationOptions() };
            using var trainer = new LLaVATrainer(run.Peft, run, options, watch) { Evaluation = evaluate ? new EvaluationSource { Data = run } : null };
            trainer.Train();
            losses.Add([.. watch.Reports.Select(r => r.Loss)]);
            Assert.Equal(evaluate ? [3, 6, 7] : [], trainer.Evaluations.Select(e => e.Step));
            foreach (var report in trainer.Evaluations)
            {
                Assert.Equal(own.Single(o => o.Step == report.Step).Loss, report.Loss!.Value, 1e-6);
                Assert.Equal(report.Loss, report.Metric);
            }
            if (!evaluate) continue;
            Assert.Equal(watch.Reports[..3].Average(r => r.Loss), trainer.Evaluations[0].TrainLoss, 1e-12);
            Assert.Equal(watch.Reports[3..6].Average(r => r.Loss), trainer.Evaluations[1].TrainLoss, 1e-12);
            Assert.Equal(trainer.Evaluations[1], watch.Reports[5].Evaluation);
            Assert.Null(watch.Reports[4].Evaluation);
            Assert.Equal(trainer.BestEvaluation, watch.Summary!.Best);
            Assert.Equal(trainer.Evaluations.MinBy(e => e.Loss), trainer.BestEvaluation);
        }
        Assert.Equal(losses[0], losses[1]);
    }

    [Fact]
    public void Once_an_epoch_and_at_the_end()
    {
        using var run = new TinyRun();
        // 2 steps an epoch.
        using var trainer = new LLaVATrainer(run.Peft, run, run.Options with { MaxSteps = 5, Evaluation = EachStep with { Strategy = EvaluationStrategy.Epoch } }) { Evaluation = new EvaluationSource { Data = run } };
        trainer.Train();
        Assert.Equal([2, 4, 5], trainer.Evaluations.Select(e => e.Step));
        Assert.Equal([1.0, 2.0, 2.5], trainer.Evaluations.Select(e => e.Epoch));
    }

    // transformers' EarlyStoppingCallback: gain = better than the best by more than the threshold; the best needs no distance.
    [Theory]
    [InlineData("lower", 0.0, 2, new[] { 5.0, 3, 4, 3.05, 2, 1 }, 4, 2)]
    [InlineData("lower", 0.5, 2, new[] { 5.0, 4.6, 4.2, 3, 2, 1 }, 3, 3)]
    [InlineData("lower", 0.5, 2, new[] { 5.0, 4.6, 4.0, 3.9, 3.8, 1 }, 5, 5)]
    [InlineData("lower", 0.0, 2, new[] { double.NaN, double.NaN, 3.0, 2, 1, 0 }, 2, 0)]
    [InlineData("greater", 0.0, 2, new[] { 0.1, 0.3, double.NaN, 0.3, 0.9, 1 }, 4, 2)]
    [InlineData("greater", 0.0, null, new[] { 0.1, 0.3, 0.2, 0.3, 0.9, 0.8 }, 6, 5)]
    public void Training_stops_when_patience_runs_out(string better, double threshold, int? patience, double[] scores, int steps, int best)
    {
        using var run = new TinyRun();
        var evaluation = EachStep with { MetricForBest = "eval_score", GreaterIsBetter = better == "greater", EarlyStoppingPatience = patience, EarlyStoppingThreshold = threshold };
        using var trainer = new LLaVATrainer(run.Peft, run, run.Options with { MaxSteps = 6, Evaluation = evaluation }) { Evaluation = Scores(scores) };
        var summary = trainer.Train();
        Assert.Equal(steps, summary.Steps);
        Assert.Equal(steps < 6, summary.Stopped);
        Assert.Equal(best, summary.Best?.Step ?? 0);
        Assert.All(trainer.Evaluations, e => Assert.Null(e.Loss));
    }

    [Fact]
    public void A_score_wins_upwards_and_a_loss_downwards_unless_told()
    {
        using var run = new TinyRun();
        foreach (var (metric, greater, best) in new[] { ("score", (bool?)null, 3), ("score", false, 2), ("my_loss", null, 2) })
        {
            int next = 0;
            double[] values = [2, 1, 3];
            using var trainer = new LLaVATrainer(run.Peft, run, run.Options with { MaxSteps = 3, Evaluation = EachStep with { MetricForBest = metric, GreaterIsBetter = greater } })
            {
                Evaluation = new EvaluationSource { Scores = Named(metric, () => values[next++]) },
            };
            Assert.Equal(best, trainer.Train().Best!.Step);
        }
    }

    [Fact]
    public void The_training_loss_alone_can_decide()
    {
        using var run = new TinyRun();
        var watch = new Watch();
        using var trainer = new LLaVATrainer(run.Peft, run, run.Options with { MaxSteps = 4, Evaluation = EachStep with { Steps = 2, MetricForBest = EvaluationOptions.TrainLoss } }, watch);
        trainer.Train();
        Assert.Equal(watch.Reports[2..].Average(r => r.Loss), trainer.Evaluations[1].Metric, 1e-12);
        Assert.Empty(trainer.Evaluations[1].Values);
    }

    /// <summary>transformers sets the two together, when it writes the checkpoint.</summary>
    [Theory, Trait("Fault", "files-5")]
    [InlineData(1, null, "checkpoint-2", 1.0)]
    [InlineData(3, null, "checkpoint-3", 3.0)]       // step 2 was better, and nothing has its weights
    [InlineData(1, 2, "checkpoint-4", 4.0)]          // those of steps 2 and 3 have gone
    [InlineData(9, null, null, 0.0)]
    public void The_best_metric_is_named_with_the_checkpoint_that_has_it_or_not_at_all(int saveSteps, int? limit, string? best, double metric)
    {
        using var run = new TinyRun();
        var options = run.Options with
        {
            MaxSteps = 5, SaveStrategy = SaveStrategy.Steps, SaveSteps = saveSteps, SaveTotalLimit = limit,
            Evaluation = EachStep with { MetricForBest = "eval_score", GreaterIsBetter = false },
        };
        using var trainer = new LLaVATrainer(run.Peft, run, options) { Evaluation = Scores(2, 1, 3, 4, 5) };
        trainer.Train();
        trainer.SaveModel();
        using var state = JsonDocument.Parse(File.ReadAllText(Path.Combine(run.Output, "trainer_state.json")));
        Assert.Equal(best is null ? null : Path.Combine(run.Output, best), state.RootElement.GetProperty("best_model_checkpoint").GetString());
        var value = state.RootElement.GetProperty("best_metric");
        Assert.Equal(best is null ? null : (double?)metric, value.ValueKind == JsonValueKind.Null ? null : (double?)value.GetDouble());
        if (saveSteps > 1) return;
        string last = Path.Combine(run.Output, "checkpoint-5", "trainer_state.json");
        using var written = JsonDocument.Parse(File.ReadAllText(last));
        Assert.StartsWith(Path.Combine(run.Output, "checkpoint-"), written.RootElement.GetProperty("best_model_checkpoint").GetString());
    }

    [Fact]
    public void The_best_weights_come_back_at_the_end_and_their_checkpoint_stays()
    {
        using var run = new TinyRun();
        float[]? atBest = null;
        var watch = new Watch { OnReport = r => atBest = r.Step == 2 ? Weights(run) : atBest };
        var options = run.Options with
        {
            MaxSteps = 5, SaveStrategy = SaveStrategy.Steps, SaveSteps = 1, SaveTotalLimit = 2,
            Evaluation = EachStep with { MetricForBest = "score", LoadBestAtEnd = true },
        };
        using var trainer = new LLaVATrainer(run.Peft, run, options, watch) { Evaluation = Scores(0.5, 0.9, 0.1, 0.2, double.NaN) };
        trainer.Train();
        Assert.Equal(atBest, Weights(run));
        Assert.Equal([2, 5], TrainingCheckpoint.All(run.Output).Select(c => c.Step));
        trainer.SaveModel();
        using var state = JsonDocument.Parse(File.ReadAllText(Path.Combine(run.Output, "trainer_state.json")));
        Assert.Equal(0.9, state.RootElement.GetProperty("best_metric").GetDouble());
        Assert.Equal(Path.Combine(run.Output, "checkpoint-2"), state.RootElement.GetProperty("best_model_checkpoint").GetString());
        Assert.Equal(1, state.RootElement.GetProperty("eval_steps").GetInt32());
        var log = state.RootElement.GetProperty("log_history").EnumerateArray().ToList();
        Assert.Equal(["loss 1", "eval 1", "loss 2", "eval 2", "loss 3", "eval 3", "loss 4", "eval 4", "loss 5", "eval 5", "end 5"], log.Select(e =>
            (e.TryGetProperty("eval_score", out _) ? "eval " : e.TryGetProperty("loss", out _) ? "loss " : "end ") + e.GetProperty("step").GetInt32()));
    }

    [Fact]
    public void The_best_is_kept_without_any_other_checkpoint()
    {
        using var run = new TinyRun();
        using var trainer = new LLaVATrainer(run.Peft, run, run.Options with { MaxSteps = 3, Evaluation = EachStep with { MetricForBest = "score", LoadBestAtEnd = true } }) { Evaluation = Scores(0.5, 0.9, 0.1) };
        trainer.Train();
        Assert.Equal([1, 2], TrainingCheckpoint.All(run.Output).Select(c => c.Step));
    }

    [Fact]
    public void Best_weights_are_no_checkpoint_with_the_last_moments()
    {
        using var run = new TinyRun(dropout: 0.3);
        var options = run.Options with { MaxSteps = 5, Evaluation = EachStep with { MetricForBest = "score", LoadBestAtEnd = true } };
        using var trainer = new LLaVATrainer(run.Peft, run, options) { Evaluation = Scores(0.5, 0.9, 0.1, 0.2, 0.3) };
        trainer.Train();
        string best = Path.Combine(run.Output, "checkpoint-2");
        Assert.Equal("This trainer has loaded the best weights, those of step 2, and its optimizer is that of step 5: no run can go on from the two. "
            + $"Resume from {best}, or call SaveModel for the results.", Assert.Throws<InvalidOperationException>(() => trainer.SaveCheckpoint()).Message);
        Assert.Equal([1, 2], TrainingCheckpoint.All(run.Output).Select(c => c.Step));
        string results = Path.Combine(run.Output, "results");
        trainer.SaveModel(results);
        Assert.Equal(File.ReadAllBytes(Path.Combine(best, "adapter_model.safetensors")), File.ReadAllBytes(Path.Combine(results, "adapter_model.safetensors")));

        // What the message names goes on: the same judgements from step 3 on lead to the same best.
        using var again = new TinyRun(dropout: 0.3);
        using var resumed = new LLaVATrainer(again.Peft, again, options) { Evaluation = Scores(0.1, 0.2, 0.3) };
        resumed.ResumeFrom(best);
        Assert.Equal(2, resumed.Train().Best!.Step);
        Assert.Equal(Weights(run), Weights(again));
    }

    [Fact]
    public void A_best_checkpoint_that_is_gone_is_named_and_the_last_weights_stay()
    {
        using var run = new TinyRun();
        string best = Path.Combine(run.Output, "checkpoint-1");
        float[]? last = null;
        var watch = new Watch
        {
            OnReport = r =>
            {
                if (r.Step == 2) File.Delete(Path.Combine(best, "non_lora_trainables.bin"));
                last = Weights(run);
            },
        };
        using var trainer = new LLaVATrainer(run.Peft, run, run.Options with { MaxSteps = 3, Evaluation = EachStep with { MetricForBest = "score", LoadBestAtEnd = true } }, watch)
        {
            Evaluation = Scores(0.9, 0.5, 0.1),
        };
        var e = Assert.Throws<StateMismatchException>(() => trainer.Train());
        Assert.StartsWith($"The checkpoint {best} does not fit this training (4 problems): 'base_model.model.model.mm_projector.0.weight' is in no file;", e.Message, StringComparison.Ordinal);
        Assert.Equal(last, Weights(run));
        Assert.Equal(Path.Combine(run.Output, "checkpoint-3"), trainer.SaveCheckpoint());
    }

    [Fact]
    public void Where_a_later_checkpoint_is_there_it_is_named_too_and_a_best_last_step_can_be_saved()
    {
        using var run = new TinyRun();
        var options = run.Options with { MaxSteps = 3, SaveStrategy = SaveStrategy.Steps, SaveSteps = 1, Evaluation = EachStep with { MetricForBest = "score", LoadBestAtEnd = true } };
        using (var trainer = new LLaVATrainer(run.Peft, run, options) { Evaluation = Scores(0.5, 0.9, 0.1) })
        {
            trainer.Train();
            Assert.Contains($"Resume from {Path.Combine(run.Output, "checkpoint-2")} or {Path.Combine(run.Output, "checkpoint-3")}, or call SaveModel for the results.",
                Assert.Throws<InvalidOperationException>(() => trainer.SaveCheckpoint()).Message, StringComparison.Ordinal);
        }

        using var last = new LLaVATrainer(run.Peft, run, options with { ReplaceCheckpoints = true }) { Evaluation = Scores(0.5, 0.6, 0.9) };
        last.Train();
        string elsewhere = last.SaveCheckpoint(Path.Combine(run.Output, "elsewhere"));
        foreach (string file in new[] { "adapter_model.safetensors", "optimizer.safetensors", "training_state.json" })
            Assert.Equal(File.ReadAllBytes(Path.Combine(run.Output, "checkpoint-3", file)), File.ReadAllBytes(Path.Combine(elsewhere, file)));
    }

    [Theory]
    [InlineData(1)]
    [InlineData(3)]
    public void A_resumed_run_judges_as_the_unbroken_one(int from)
    {
        TrainingOptions Options(TinyRun run) => run.Options with
        {
            MaxSteps = 9, SaveStrategy = SaveStrategy.Steps, SaveSteps = 1,
            Evaluation = EachStep with { Steps = 2, LoadBestAtEnd = true, MetricForBest = "score", EarlyStoppingPatience = 3 },
        };
        double[] values = [0.4, 0.3, 0.2, double.NaN, 0.9];
        using var whole = new TinyRun(dropout: 0.3);
        using var first = new LLaVATrainer(whole.Peft, whole, Options(whole)) { Evaluation = Scores(values) with { Data = whole } };
        var summary = first.Train();
        Assert.Equal((8, 2, true), (summary.Steps, summary.Best!.Step, summary.Stopped));

        using var again = new TinyRun(dropout: 0.3);
        // The evaluation of step 2 comes from the checkpoint, or is done again.
        using var resumed = new LLaVATrainer(again.Peft, again, Options(again)) { Evaluation = Scores(values[(from / 2)..]) with { Data = again } };
        resumed.ResumeFrom(Path.Combine(whole.Output, TrainingCheckpoint.NameOf(from)));
        var second = resumed.Train();
        Assert.Equal((summary.Steps, summary.Best.Step, summary.Stopped), (second.Steps, second.Best!.Step, second.Stopped));
        Assert.Equal(first.Evaluations.Select(e => (e.Step, e.Loss, e.TrainLoss, e.Metric, e.IsBest)), resumed.Evaluations.Select(e => (e.Step, e.Loss, e.TrainLoss, e.Metric, e.IsBest)));
        Assert.Equal(Weights(whole), Weights(again));

        Directory.Delete(Path.Combine(whole.Output, "checkpoint-2"), recursive: true);
        using var third = new TinyRun(dropout: 0.3);
        using var lost = new LLaVATrainer(third.Peft, third, Options(third)) { Evaluation = Scores(values) with { Data = third } };
        var e = Assert.Throws<StateMismatchException>(() => lost.ResumeFrom(Path.Combine(whole.Output, "checkpoint-4")));
        Assert.Equal([$"the checkpoint of its best evaluation, {Path.Combine(whole.Output, "checkpoint-2")}, is not there, and Evaluation.LoadBestAtEnd would need it"], e.Problems);
    }

    [Fact]
    public void Answers_are_generated_and_scored_within_a_training()
    {
        using var tiny = TinyLlava.Create(3);
        using var peft = tiny.Model.GetPeftModel(new LoraConfig { Rank = 3, Alpha = 7, TargetModules = (string[])["q_proj", "v_proj"] });
        using var answers = new AnswerEvaluation(tiny.Dataset(3), new AnswerEvaluationOptions { MaxNewTokens = 3 });
        string output = Directory.CreateTempSubdirectory("answers-").FullName;
        using var trainer = new LLaVATrainer(peft, tiny.Dataset(4), new TrainingOptions
        {
            OutputDirectory = output, MaxSteps = 2, BatchSize = 2, MaxLength = 256, SaveStrategy = SaveStrategy.None, Evaluation = EachStep with { Steps = 2, MetricForBest = "exact" },
        })
        {
            Evaluation = new EvaluationSource { Scores = new Dictionary<string, Func<LlavaModel, CancellationToken, double>> { ["exact"] = EvaluationSource.ExactAnswers(answers) } },
        };
        trainer.Train();
        double expected = answers.Run(tiny.Model).Count(a => a.IsExact) / 3.0;
        Assert.Equal(expected, trainer.Evaluations.Single().Scores["exact"]);
    }

    [Fact]
    public void What_the_evaluation_cannot_give_is_refused_before_the_first_step()
    {
        using var run = new TinyRun();
        IReadOnlyList<string> Problems(EvaluationOptions options, EvaluationSource? source)
        {
            using var trainer = new LLaVATrainer(run.Peft, run, run.Options with { Evaluation = options }) { Evaluation = source };
            var problems = Assert.Throws<TrainingOptionsException>(() => trainer.Train()).Problems;
            Assert.Equal(0, trainer.StepsDone);
            return problems;
        }
        Assert.Equal(["MetricForBest is 'loss', and the evaluation gives train_loss; set the trainer's Evaluation with Data, a Dataset or such a score"], Problems(EachStep, null));
        Assert.Equal(["MetricForBest is 'eval_exact', and the evaluation gives train_loss, loss, score; set the trainer's Evaluation with Data, a Dataset or such a score"],
            Problems(EachStep with { MetricForBest = "eval_exact" }, Scores(1) with { Data = run }));
        Assert.Equal(["a score is named 'loss', which is a metric of its own; choose another name"],
            Problems(EachStep, new EvaluationSource { Scores = Named("loss", () => 1) }));
        Assert.Equal(["Evaluation is given to the trainer, and Evaluation.Strategy is None; set it to Steps or Epoch"], Problems(new EvaluationOptions(), Scores(1)));
    }

    [Fact]
    public void Evaluations_leave_no_tensor_behind()
    {
        using var run = new TinyRun();
        int seen = 0;
        var counts = new List<long>();
        var watch = new Watch { Keep = false, OnReport = r => { if (++seen > 3) counts.Add(DisposeScopeManager.Statistics.TensorStatistics.ThreadTotalLiveCount); } };
        using var trainer = new LLaVATrainer(run.Peft, run, run.Options with { MaxSteps = 12, Evaluation = EachStep }, watch) { Evaluation = new EvaluationSource { Data = run } };
        trainer.Train();
        Assert.Single(counts.Distinct());
    }

    private static float[] Weights(TinyRun run)
    {
        using var scope = NewDisposeScope();
        return cat([.. run.Peft.TrainableParameters().Select(p => p.Parameter.detach().flatten())]).data<float>().ToArray();
    }
}
