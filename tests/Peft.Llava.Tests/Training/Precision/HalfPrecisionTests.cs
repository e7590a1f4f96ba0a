using Peft.Core;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Training;

/// <summary>Training on a float16 base.</summary>
[Collection(ProcessWideState.Name)]
public sealed class HalfPrecisionTests
{
    private static TinyRun Run(double dropout = 0, ScalarType dtype = ScalarType.Float16)
    {
        var run = new TinyRun(dropout: dropout, dtype: dtype);
        run.Model.Projector!.to(ScalarType.Float32);
        return run;
    }

    private static TrainingOptions Half(TinyRun run) => run.Options with { Precision = TrainingPrecision.Float16 };

    [Fact]
    public void Two_hundred_steps_follow_those_in_float32()
    {
        var losses = new List<double[]>();
        foreach (var dtype in new[] { ScalarType.Float32, ScalarType.Float16 })
        {
            using var run = Run(dtype: dtype);
            var watch = new Watch();
            var options = run.Options with { LearningRate = 2e-3, ProjectorLearningRate = 5e-4, MaxSteps = 200, GradientCheckpointing = true };
            if (dtype == ScalarType.Float16) options = options with { Precision = TrainingPrecision.Float16 };
            using var trainer = new LLaVATrainer(run.Peft, run, options, watch);
            trainer.Train();
            losses.Add([.. watch.Reports.Select(r => r.Loss)]);
            if (dtype == ScalarType.Float16) Assert.Equal(AdapterPrecision.Promote, run.Peft.Precision);
        }
        Assert.True(losses[0][^1] < 0.8 * losses[0][0], $"the loss went from {losses[0][0]} to {losses[0][^1]}");
        Assert.All(losses[0].Zip(losses[1]), pair => Assert.InRange(pair.Second, 0.98 * pair.First, 1.02 * pair.First));
        Assert.NotEqual(losses[0], losses[1]);
    }

    [Fact]
    public void A_step_that_overflows_is_skipped_and_halves_the_scale()
    {
        using var run = Run();
        // From far too high down to where gradients fit, then up again every third step.
        var options = Half(run) with { MaxSteps = 30, LossScaling = new GradientScalerOptions { InitialScale = Math.Pow(2, 30), GrowthInterval = 3 } };
        var weights = new List<float[]>();
        var watch = new Watch { OnReport = _ => weights.Add(Adapter(run)) };
        weights.Add(Adapter(run));
        using var trainer = new LLaVATrainer(run.Peft, run, options, watch);
        trainer.Train();
        int skipped = watch.Reports.Count(r => r.Skipped);
        Assert.Equal(skipped, trainer.SkippedSteps);
        Assert.InRange(skipped, 3, 25);
        Assert.True(watch.Reports[0].Skipped);
        var schedule = new LearningRateSchedule(options.Schedule, 1, 30, options.LearningRate, null);
        int good = 0;
        foreach (var (report, i) in watch.Reports.Select((r, i) => (r, i)))
        {
            Assert.Equal(options.LearningRate * schedule.Factor(good), report.Rates[0], 1e-15);
            double next = i + 1 < watch.Reports.Count ? watch.Reports[i + 1].LossScale : trainer.Scaler!.Scale;
            Assert.True(double.IsFinite(report.Loss));
            Assert.Equal(report.Skipped, !double.IsFinite(report.GradNorm));
            if (report.Skipped)
            {
                Assert.Equal(report.LossScale / 2, next);
                Assert.False(report.Clipped);
                Assert.Equal(report.Rates, report.NextRates);
                Assert.Equal(weights[i], weights[i + 1]);
                continue;
            }
            Assert.True(next == report.LossScale || next == 2 * report.LossScale, $"{report.LossScale} to {next}");
            if (report.Rates[0] > 0) Assert.NotEqual(weights[i], weights[i + 1]);
            good++;
        }
    }

    [Fact]
    public void Observers_of_gradients_see_them_unscaled_and_only_where_a_step_is_done()
    {
        using var run = Run();
        var seen = new List<(int Step, double Norm)>();
        var observer = new GradientWatch(seen);
        using var trainer = new LLaVATrainer(run.Peft, run, Half(run) with { MaxSteps = 20, LossScaling = new GradientScalerOptions { InitialScale = Math.Pow(2, 25) } }, observer);
        trainer.Train();
        Assert.InRange(trainer.SkippedSteps, 1, 15);
        Assert.Equal(20 - trainer.SkippedSteps, seen.Count);
        Assert.DoesNotContain(1, seen.Select(s => s.Step));
        Assert.All(seen, s => Assert.InRange(s.Norm, 0.05, 20));
    }

    [Theory]
    [InlineData(2)]
    [InlineData(9)]
    public void A_resumed_run_ends_with_the_bits_of_the_unbroken_one(int from)
    {
        TrainingOptions Options(TinyRun run) => Half(run) with
        {
            MaxSteps = 14, SaveStrategy = SaveStrategy.Steps, SaveSteps = 1, LossScaling = new GradientScalerOptions { InitialScale = Math.Pow(2, 26), GrowthInterval = 3 },
        };
        using var whole = Run(dropout: 0.3);
        var wholeWatch = new Watch();
        using (var trainer = new LLaVATrainer(whole.Peft, whole, Options(whole), wholeWatch)) trainer.Train();
        using var again = Run(dropout: 0.3);
        var watch = new Watch();
        // Another first scale and interval: those of the checkpoint count.
        using var resumed = new LLaVATrainer(again.Peft, again, Options(again) with { LossScaling = new GradientScalerOptions() }, watch);
        resumed.ResumeFrom(Path.Combine(whole.Output, TrainingCheckpoint.NameOf(from)));
        Assert.Equal(wholeWatch.Reports.Take(from).Count(r => r.Skipped), resumed.SkippedSteps);
        Assert.True(resumed.SkippedSteps > 0);
        resumed.Train();
        Assert.Equal(wholeWatch.Reports.Skip(from).Select(r => (r.Step, r.Loss, r.GradNorm, r.LossScale, r.Skipped, r.Rates[0])),
            watch.Reports.Select(r => (r.Step, r.Loss, r.GradNorm, r.LossScale, r.Skipped, r.Rates[0])));
        Assert.True(wholeWatch.Reports.Skip(from).Select(r => r.LossScale).Distinct().Count() > 1, "the scale has to move after the checkpoint");
        Assert.Equal(Adapter(whole), Adapter(again));
    }

    [Fact]
    public void A_scale_that_can_fall_no_further_ends_the_training()
    {
        using var run = Run();
        var options = Half(run) with { LossScaling = new GradientScalerOptions { InitialScale = Math.Pow(2, 30), MinimumScale = Math.Pow(2, 29) } };
        float[] before = Adapter(run);
        using var trainer = new LLaVATrainer(run.Peft, run, options);
        var e = Assert.Throws<NonFiniteLossException>(() => trainer.Train());
        Assert.StartsWith("In step 2 the gradient is ", e.Message, StringComparison.Ordinal);
        Assert.Equal(1, trainer.SkippedSteps);
        Assert.Equal(before, Adapter(run));
    }

    [Fact]
    public void A_loss_that_is_no_number_is_no_matter_of_the_scale()
    {
        using var run = Run();
        run.Broken.Add(2);
        using var trainer = new LLaVATrainer(run.Peft, run, Half(run) with { Ordering = SampleOrdering.Sequential });
        Assert.StartsWith("In step 1 the loss is NaN; ", Assert.Throws<NonFiniteLossException>(() => trainer.Train()).Message, StringComparison.Ordinal);
        Assert.Equal(65536, trainer.Scaler!.Scale);
    }

    [Fact]
    public void What_does_not_fit_float16_is_refused_before_anything_changes()
    {
        using var half = new TinyRun(dtype: ScalarType.Float16);
        using var whole = new TinyRun();
        const string load = "load the base with LlavaLoadOptions.ProjectorDtype = ScalarType.Float32, and make adapters with AdapterOptions.UpcastToFloat32, the default";
        Assert.Equal(["the base is in Float16, whose small gradients are lost without loss scaling, and Precision is BFloat16; set Precision to TrainingPrecision.Float16, "
            + "or load the base with another LlavaLoadOptions.Dtype"], Problems(half, half.Options with { Precision = TrainingPrecision.BFloat16 }));
        Assert.Equal(["Precision is Float16 and the base is in Float32; load it with LlavaLoadOptions.Dtype = ScalarType.Float16"], Problems(whole, Half(whole)));
        Assert.Equal([$"4 parameters that learn are in Float16 ('model.mm_projector.0.weight', …), and their steps would be lost to rounding; {load}"], Problems(half, Half(half)));
        Assert.False(half.Model.Parameters(ModelPart.Projector).First().Parameter.requires_grad);
        half.Peft.Dispose();
        Assert.Equal(["the language model itself cannot learn in Float16, since its steps are lost to rounding; train adapters, or set Precision to BFloat16 or Float32"],
            Assert.Throws<TrainingOptionsException>(() => new LLaVATrainer(half.Model, half, Half(half) with { Trainable = TrainableParts.Full(projector: false) })).Problems);
    }

    [Fact]
    public void Checkpoints_with_and_without_a_scaler_do_not_mix()
    {
        using var half = Run();
        using var whole = Run(dtype: ScalarType.Float32);
        foreach (var (run, options) in new[] { (half, Half(half)), (whole, whole.Options) })
            using (var trainer = new LLaVATrainer(run.Peft, run, options with { MaxSteps = 1, SaveStrategy = SaveStrategy.Steps, SaveSteps = 1 })) trainer.Train();
        string ofHalf = TrainingCheckpoint.Latest(half.Output)!, ofWhole = TrainingCheckpoint.Latest(whole.Output)!;
        File.Move(Path.Combine(ofHalf, "scaler.pt"), Path.Combine(ofWhole, "scaler.pt"));
        using var resumedHalf = new LLaVATrainer(half.Peft, half, Half(half) with { MaxSteps = 1 });
        Assert.Equal(["it holds no scaler.pt, so it was not trained in Float16"], Assert.Throws<StateMismatchException>(() => resumedHalf.ResumeFrom(ofHalf)).Problems);
        using var resumedWhole = new LLaVATrainer(whole.Peft, whole, whole.Options with { MaxSteps = 1 });
        Assert.Equal(["it holds scaler.pt, so it was trained in Float16, and Precision is Float32"],
            Assert.Throws<StateMismatchException>(() => resumedWhole.ResumeFrom(ofWhole)).Problems);
    }

    [Fact]
    public void Batches_that_run_on_the_kernels_in_other_dtypes_run_in_float16_too()
    {
        using var half = Run();
        using var whole = Run(dtype: ScalarType.Float32);
        using var scope = NewDisposeScope();
        var losses = new List<double>();
        var norms = new List<double>();
        foreach (var run in new[] { whole, half })
        {
            run.Peft.Precision = AdapterPrecision.BaseDtype;
            run.Model.SetTrainable(ModelPart.Projector, true);
            // More than 512 packed tokens and 128 supervised ones.
            using var batch = run.Batch([.. Enumerable.Range(0, 40).Select(i => i % 7)]);
            Assert.True(batch.Layout.TokenCount > KernelChoice.BatchRows && batch.SupervisedTokens > SupervisedLoss.FusedRows);
            var (sum, count) = run.Model.LossSum(batch);
            ((sum * 1024) / count).backward();
            losses.Add(sum.ToDouble() / count);
            norms.Add(GradientNorm.Measure(run.Peft.TrainableParameters().Select(p => new NamedParameter(p.Name, p.Parameter)), 0).Norm);
        }
        Assert.Equal(losses[0], losses[1], 2e-3 * losses[0]);
        Assert.Equal(norms[0], norms[1], 1e-2 * norms[0]);
    }

    private static IReadOnlyList<string> Problems(TinyRun run, TrainingOptions options)
        => Assert.Throws<TrainingOptionsException>(() => new LLaVATrainer(run.Peft, run, options)).Problems;

    private static float[] Adapter(TinyRun run)
    {
        using var scope = NewDisposeScope();
        return cat([.. run.Model.named_parameters().Where(p => p.parameter.dtype == ScalarType.Float32).Select(p => p.parameter.detach().flatten())]).data<float>().ToArray();
    }

    private sealed class GradientWatch(List<(int Step, double Norm)> seen) : ITrainingObserver
    {
        public void OnGradients(int step, IReadOnlyList<ParameterGroup> groups) => seen.Add((step, GradientNorm.Measure(groups.SelectMany(g => g.Parameters), 0).Norm));

        public TrainingVerdict OnStep(StepReport report) => TrainingVerdict.Continue;
    }
}
