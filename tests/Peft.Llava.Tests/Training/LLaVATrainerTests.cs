using Peft.Core;
using Peft.Llava;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Training;

[Collection(ProcessWideState.Name)]
public sealed class LLaVATrainerTests
{
    [Fact]
    public void Training_lowers_the_loss_and_reports_each_step()
    {
        using var run = new TinyRun();
        var watch = new Watch();
        using var trainer = new LLaVATrainer(run.Peft, run, run.Options with { MaxSteps = 12 }, watch);
        var summary = trainer.Train();
        Assert.Equal(12, summary.Steps);
        Assert.False(summary.Stopped);
        Assert.True(watch.Reports[^1].Loss < watch.Reports[0].Loss, $"loss went from {watch.Reports[0].Loss} to {watch.Reports[^1].Loss}");
        Assert.Equal(Enumerable.Range(1, 12), watch.Reports.Select(r => r.Step));
        Assert.All(watch.Reports, r => Assert.True(r.Seconds > 0 && r.DataWaitSeconds >= 0 && r.Tokens > r.SupervisedTokens && r.SupervisedTokens > 0));
        // Three spans of a step that do not overlap (a tick of rounding each).
        Assert.All(watch.Reports, r => Assert.True(r.ComputeSeconds > 0 && r.ComputeSeconds + r.DataWaitSeconds <= r.Seconds + 1e-6));
        Assert.Equal(0, watch.Reports[0].Rates[0]);
        Assert.Equal(0.02, watch.Reports[1].Rates[0], 1e-12);
        Assert.Equal(0.003, watch.Reports[1].Rates[2], 1e-12);
        Assert.Same(summary, watch.Summary);
        Assert.Equal(12, watch.Start!.TotalSteps);
        Assert.Equal(4, watch.Start.BatchesPerEpoch);
        Assert.True(watch.Start.TrainedElements > 0);
    }

    [Fact]
    public void What_was_switched_for_the_training_is_switched_back()
    {
        using var run = new TinyRun(dtype: ScalarType.BFloat16);
        using var before = get_rng_state();
        using var trainer = new LLaVATrainer(run.Peft, run, run.Options with { GradientCheckpointing = true, Precision = TrainingPrecision.BFloat16 });
        trainer.Train();
        using var after = get_rng_state();
        Assert.False(run.Model.training);
        Assert.False(run.Model.GradientCheckpointing);
        Assert.Equal(AdapterPrecision.Promote, run.Peft.Precision);
        TensorAssert.Equal(before, after, "torch's generator");
    }

    [Theory]
    [InlineData(0)]
    [InlineData(3)]
    public void The_same_seed_gives_the_same_losses_whatever_prepares_the_data(int workers)
    {
        var losses = new List<double[]>();
        foreach (int w in new[] { 0, workers })
        {
            using var run = new TinyRun(dropout: 0.2);
            var watch = new Watch();
            using var trainer = new LLaVATrainer(run.Peft, run, run.Options with { MaxSteps = 9, DataWorkers = w }, watch);
            trainer.Train();
            losses.Add([.. watch.Reports.Select(r => r.Loss)]);
        }
        Assert.Equal(losses[0], losses[1]);
    }

    [Fact]
    public void One_batch_of_four_and_four_of_one_give_the_same_step()
    {
        var norms = new List<double>();
        foreach (var (batch, accumulate) in new[] { (4, 1), (1, 4) })
        {
            using var run = new TinyRun();
            var watch = new Watch();
            using var trainer = new LLaVATrainer(run.Peft, run, run.Options with { BatchSize = batch, AccumulationSteps = accumulate, MaxSteps = 1, Ordering = SampleOrdering.Sequential }, watch);
            trainer.Train();
            norms.Add(watch.Reports[0].GradNorm);
            norms.Add(watch.Reports[0].Loss);
        }
        Assert.Equal(norms[0], norms[2], 1e-5);
        Assert.Equal(norms[1], norms[3], 1e-5);
    }

    [Fact]
    public void Steps_end_with_the_epoch_but_in_the_exact_mode_they_go_on_over_it()
    {
        var options = new TrainingOptions { OutputDirectory = "x", BatchSize = 2, AccumulationSteps = 3, Epochs = 2, MaxLength = 9 };
        // 7 samples: 4 batches an epoch.
        var own = new StepPlan(options, 7).Steps().ToList();
        Assert.Equal([3, 1, 3, 1], own.Select(s => s.MicroBatches.Count));
        Assert.Equal([0.75, 1, 1.75, 2], own.Select(s => s.Epoch));
        Assert.Equal([false, true, false, true], own.Select(s => s.EndsEpoch));
        var exact = new StepPlan(options with { Weighting = StepWeighting.LlavaExact }, 7);
        Assert.Equal(2, exact.TotalSteps);
        Assert.Equal([0.75, 1.5], exact.Steps().Select(s => s.Epoch));
        Assert.Equal([3, 1], new StepPlan(options with { Epochs = 1, AccumulationSteps = 3, DropLastBatch = false }, 7).Steps().Select(s => s.MicroBatches.Count));
        Assert.Equal([2], new StepPlan(options with { Epochs = 1, AccumulationSteps = 5, Weighting = StepWeighting.LlavaExact }, 4).Steps().Select(s => s.MicroBatches.Count));
    }

    [Fact]
    public void An_observer_can_stop_the_training()
    {
        using var run = new TinyRun();
        var watch = new Watch { StopAt = 2 };
        using var trainer = new LLaVATrainer(run.Peft, run, run.Options with { MaxSteps = 9 }, watch);
        var summary = trainer.Train();
        Assert.True(summary.Stopped);
        Assert.Equal(2, summary.Steps);
    }

    [Fact]
    public void A_cancelled_training_keeps_the_weights_of_the_steps_done()
    {
        using var run = new TinyRun();
        using var source = new CancellationTokenSource();
        var watch = new Watch { OnReport = r => { if (r.Step == 3) source.Cancel(); } };
        using var trainer = new LLaVATrainer(run.Peft, run, run.Options with { MaxSteps = 9 }, watch);
        var e = Assert.Throws<TrainingCanceledException>(() => trainer.Train(source.Token));
        Assert.Equal("The training was cancelled after 3 of 9 steps. The model has the weights of these steps; call SaveModel() to keep them.", e.Message);
        Assert.Equal(3, e.StepsDone);
        trainer.SaveModel();
        Assert.True(File.Exists(Path.Combine(run.Output, "adapter_model.safetensors")));
    }

    [Fact]
    public void A_loss_that_is_no_number_names_its_samples_before_a_weight_moves()
    {
        using var run = new TinyRun { Broken = { 2 } };
        var watch = new Watch();
        using var trainer = new LLaVATrainer(run.Peft, run, run.Options with { Ordering = SampleOrdering.Sequential, WarmupSteps = 0 }, watch);
        using var before = Weights(run);
        var e = Assert.Throws<NonFiniteLossException>(() => trainer.Train());
        using var after = Weights(run);
        Assert.Equal("In step 1 the loss is NaN; the weights are those after step 0. Samples: s2, s3. The pixels are not finite before any module sees them (tile 0 of 2). Look at these samples, lower the learning rate, or check the base's weights.", e.Message);
        Assert.Equal(["s2", "s3"], e.SampleIds);
        Assert.Equal(1, e.Step);
        Assert.True(double.IsNaN(e.Value));
        TensorAssert.Equal(before, after, "weights");
    }

    [Fact]
    public void A_step_without_a_label_is_refused_but_done_in_the_exact_mode()
    {
        using var run = new TinyRun { Unsupervised = { 0, 1, 2, 3 } };
        var options = run.Options with { Ordering = SampleOrdering.Sequential, MaxSteps = 1 };
        using var trainer = new LLaVATrainer(run.Peft, run, options);
        var e = Assert.Throws<NoSupervisedTokensException>(() => trainer.Train());
        Assert.Equal("In step 1 no token has a label. Samples: s0, s1, s2, s3. Their answers are empty or lie behind the length limit: raise MaxLength, or leave them out.", e.Message);
        Assert.Equal(1, e.Step);
        Assert.Equal(4, e.SampleIds.Count);

        var watch = new Watch();
        using var exact = new LLaVATrainer(run.Peft, run, options with { Weighting = StepWeighting.LlavaExact }, watch);
        exact.Train();
        Assert.True(double.IsNaN(watch.Reports[0].Loss));
        Assert.Equal(0, watch.Reports[0].GradNorm);
    }

    [Fact]
    public void Three_hundred_steps_leave_no_tensor_and_no_memory()
    {
        using var run = new TinyRun(dropout: 0.1);
        long tensors = 0, bytes = 0;
        var watch = new Watch
        {
            Keep = false,
            OnReport = r =>
            {
                // One tensor more or less lives on between steps, by whether the last batch had an image.
                long live = DisposeScopeManager.Statistics.TensorStatistics.ThreadTotalLiveCount;
                if (r.Step <= 30) tensors = Math.Max(tensors, live);
                else Assert.True(live <= tensors, $"{live} tensors live after step {r.Step}, at most {tensors} in the first 30.");
                if (r.Step == 30) bytes = ResidentBytes();
            },
        };
        using var trainer = new LLaVATrainer(run.Peft, run, run.Options with { MaxSteps = 300, GradientCheckpointing = true }, watch);
        trainer.Train();
        long grown = ResidentBytes() - bytes;
        Assert.True(grown < 40L << 20, $"resident memory grew by {grown >> 20} MB in 270 steps.");
    }

    [Fact]
    public void A_trainer_trains_once()
    {
        using var run = new TinyRun();
        using var trainer = new LLaVATrainer(run.Peft, run, run.Options with { MaxSteps = 1 });
        trainer.Train();
        Assert.Equal("This trainer has trained already. Make a new one; it starts from the weights as they are now.",
            Assert.Throws<InvalidOperationException>(() => trainer.Train()).Message);
    }

    [Fact]
    public void Options_that_do_not_fit_the_model_are_refused()
    {
        using var run = new TinyRun();
        string Problem(Func<object> make) => Assert.Throws<TrainingOptionsException>(make).Problems[0];
        Assert.Equal("BatchSize 0 is not positive", Problem(() => new LLaVATrainer(run.Peft, run, run.Options with { BatchSize = 0 })));
        Assert.Equal("adapters are to be trained, but the model has none; call model.GetPeftModel(...) and give its result to the trainer, "
            + "or set Trainable to TrainableParts.Full() or ProjectorOnly()", Problem(() => new LLaVATrainer(run.Model, run, run.Options)));
        Assert.Equal("the language model itself is to be trained, but it carries adapters; unload them, or set Trainable to TrainableParts.Lora()",
            Problem(() => new LLaVATrainer(run.Peft, run, run.Options with { Trainable = TrainableParts.Full() })));
        using var other = nn.Sequential(("q", nn.Linear(3, 4)));
        using var foreign = other.GetPeftModel(new LoraConfig { Rank = 2, TargetModules = (string[])["q"] });
        Assert.Equal("the adapters are on a Sequential, and this trainer trains a LlavaModel; call GetPeftModel on a LlavaModel",
            Problem(() => new LLaVATrainer(foreign, run, run.Options)));
    }

    [Fact]
    public void Too_few_samples_for_a_full_batch_are_refused()
    {
        using var run = new TinyRun();
        Assert.Equal("7 samples make no full batch of 8. Lower BatchSize, or set DropLastBatch to false.",
            Assert.Throws<TrainingDataException>(() => new LLaVATrainer(run.Peft, run, run.Options with { BatchSize = 8, DropLastBatch = true })).Message);
    }

    [Fact]
    public void A_failure_of_the_data_reaches_the_caller_from_a_worker_too()
    {
        foreach (int workers in new[] { 0, 2 })
        {
            using var run = new TinyRun();
            using var trainer = new LLaVATrainer(run.Peft, new Failing(run), run.Options with { DataWorkers = workers, MaxSteps = 9 });
            Assert.Equal("sample 5 is broken", Assert.Throws<TrainingDataException>(() => trainer.Train()).Message);
        }
    }

    [Fact]
    public void A_folder_that_cannot_be_written_is_known_before_the_first_step()
    {
        using var run = new TinyRun();
        string file = Path.Combine(run.Output, "file");
        File.WriteAllText(file, "");
        var watch = new Watch();
        using var trainer = new LLaVATrainer(run.Peft, run, run.Options with { OutputDirectory = Path.Combine(file, "out") }, watch);
        var e = Assert.Throws<FileWriteException>(() => trainer.Train());
        Assert.Contains(Path.Combine(file, "out"), e.Message, StringComparison.Ordinal);
        Assert.Null(watch.Start);
    }

    private static Tensor Weights(TinyRun run) => cat([.. run.Peft.TrainableParameters().Select(p => p.Parameter.detach().flatten())]).clone();

    private static long ResidentBytes()
    {
        GC.Collect();
        GC.WaitForPendingFinalizers();
        using var process = System.Diagnostics.Process.GetCurrentProcess();
        return process.WorkingSet64;
    }

    private sealed class Failing(TinyRun run) : ITrainingData
    {
        public int Count => run.Count;

        public IReadOnlyList<int> ModalityLengths => run.ModalityLengths;

        public LlavaBatch Batch(IReadOnlyList<int> indices)
            => indices.Contains(5) ? throw new TrainingDataException("sample 5 is broken") : run.Batch(indices);
    }
}

/// <summary>Keeps what it is told.</summary>
internal sealed class Watch : ITrainingObserver
{
    public List<StepReport> Reports { get; } = [];

    public TrainingStart? Start { get; private set; }

    public TrainingSummary? Summary { get; private set; }

    public int StopAt { get; init; } = -1;

    public bool Keep { get; init; } = true;

    public Action<StepReport>? OnReport { get; init; }

    public void OnStart(TrainingStart start) => Start = start;

    public TrainingVerdict OnStep(StepReport report)
    {
        if (Keep) Reports.Add(report);
        OnReport?.Invoke(report);
        return report.Step == StopAt ? TrainingVerdict.Stop : TrainingVerdict.Continue;
    }

    public void OnEnd(TrainingSummary summary) => Summary = summary;
}
