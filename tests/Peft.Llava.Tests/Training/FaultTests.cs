using Peft.Core;
using Peft.Llava;
using Peft.Quantization;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Training;

/// <summary>What can go wrong around a training: a typed error, nothing lost, and how to go on.</summary>
[Collection(ProcessWideState.Name)]
public sealed class FaultTests
{
    [Fact]
    public void A_checkpoint_that_cannot_be_written_leaves_everything_and_can_be_saved_again()
    {
        using var run = new TinyRun(dropout: 0.2);
        string inTheWay = Path.Combine(run.Output, ".checkpoint-3.tmp");
        var options = Options(run) with { MaxSteps = 5 };
        // A file stands where the next checkpoint's folder has to be made.
        var watch = new Watch { OnReport = r => { if (r.Step == 2) File.WriteAllText(inTheWay, ""); } };
        using var trainer = new LLaVATrainer(run.Peft, run, options, watch);
        Assert.Equal("There is no step to resume from: this trainer has done none. Call Train first, or SaveModel for the results.", Assert.Throws<InvalidOperationException>(() => trainer.SaveCheckpoint()).Message);
        var e = Assert.Throws<CheckpointSaveException>(() => trainer.Train());
        string target = Path.Combine(run.Output, "checkpoint-3"), earlier = Path.Combine(run.Output, "checkpoint-2");
        Assert.Equal($"The checkpoint of step 3 could not be saved: {e.InnerException!.Message} Weights and optimizer are still in memory: call the trainer's SaveCheckpoint() when "
            + $"the cause is removed, or SaveCheckpoint(folder) with a folder on another disk, and resume from what it returns. The earlier checkpoint {earlier} is whole.", e.Message);
        Assert.Equal(target, Assert.IsType<FileWriteException>(e.InnerException).Path);
        Assert.Equal((3, earlier), (e.Step, e.Earlier));
        Assert.Equal([1, 2], TrainingCheckpoint.All(run.Output).Select(c => c.Step));
        Assert.Equal(3, trainer.StepsDone);

        string elsewhere = trainer.SaveCheckpoint(Path.Combine(run.Output, "other", "disk"));
        File.Delete(inTheWay);
        Assert.Equal(target, trainer.SaveCheckpoint());
        Assert.Equal(target, trainer.LastCheckpoint);
        var ends = new List<Tensor>();
        foreach (string? from in new[] { null, elsewhere, target })
        {
            using var again = new TinyRun(dropout: 0.2);
            using var resumed = new LLaVATrainer(again.Peft, again, options with { OutputDirectory = again.Output });
            if (from is not null) resumed.ResumeFrom(from);
            resumed.Train();
            ends.Add(Weights(again));
        }
        TensorAssert.Equal(ends[0], ends[1], "saved elsewhere");
        TensorAssert.Equal(ends[0], ends[2], "saved again");
        ends.ForEach(t => t.Dispose());
    }

    [Fact]
    public void What_cannot_be_saved_is_known_before_the_first_step()
    {
        using var run = new TinyRun();
        // A target of the save is a folder, which no file can replace.
        File.WriteAllText(Path.Combine(run.Output, ".checkpoint-0.tmp"), "");
        var watch = new Watch();
        using var trainer = new LLaVATrainer(run.Peft, run, run.Options, watch);
        using var before = Weights(run);
        var e = Assert.Throws<CheckpointSaveException>(() => trainer.Train());
        Assert.Equal($"A trial save before the first step failed: {e.InnerException!.Message} No step was done.", e.Message);
        Assert.Equal((0, 0), (e.Step, trainer.StepsDone));
        Assert.Null(watch.Start);
        using var after = Weights(run);
        TensorAssert.Equal(before, after, "weights");
    }

    [Fact]
    public void The_trial_save_leaves_nothing_and_changes_nothing()
    {
        using var run = new TinyRun();
        string[]? atStart = null;
        using var trainer = new LLaVATrainer(run.Peft, run, run.Options with { MaxSteps = 1 }, new AtStart(() => atStart = Directory.GetFileSystemEntries(run.Output)));
        trainer.Train();
        Assert.Empty(atStart!);
    }

    [Fact]
    public void An_adapter_that_has_learned_nothing_or_is_broken_is_not_saved_as_if_it_had()
    {
        using var run = new TinyRun();
        using var trainer = new LLaVATrainer(run.Peft, run, run.Options with { MaxSteps = 2, WarmupSteps = 0 });
        trainer.Train();
        trainer.SaveModel();
        var factors = run.Peft.NamedParameters().Where(p => p.Name.Contains("lora_B", StringComparison.Ordinal)).ToList();
        using var noGrad = no_grad();
        foreach (var (_, parameter) in factors) parameter.zero_();
        string folder = Path.Combine(run.Output, "zero");
        Assert.Equal($"The checkpoint {folder} can't be used: it does not read back as it was written: lora_B is zero in all {factors.Count} layers although steps were done, so the adapter "
            + "does nothing. The weights are still in memory; check the disk and call SaveModel with another folder.", Assert.Throws<CheckpointException>(() => trainer.SaveModel(folder)).Message);
        factors[0].Parameter.fill_(double.PositiveInfinity);
        Assert.Contains($"'{factors[0].Name}' holds values that are not finite", Assert.Throws<CheckpointException>(() => trainer.SaveModel(folder)).Message, StringComparison.Ordinal);
        factors[0].Parameter.fill_(0.5);
        trainer.SaveModel(folder);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(2)]
    public void An_image_that_cannot_be_read_names_file_and_sample_from_a_worker_too(int workers)
    {
        using var run = new TinyRun();
        using var tiny = TinyLlava.Create(5);
        using var peft = tiny.Model.GetPeftModel(new LoraConfig { Rank = 2, Alpha = 5, TargetModules = (string[])["q_proj"] });
        string file = Path.Combine(run.Output, "broken.png");
        File.WriteAllBytes(file, [0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10, 0, 0]);
        var samples = TinyLlava.Samples(6).ToList();
        samples[4] = samples[4] with { Images = [file] };
        var data = new LlavaDataset(samples, new SampleEncoder(tiny.Processor));
        var options = run.Options with { Ordering = SampleOrdering.Sequential, BatchSize = 1, SaveStrategy = SaveStrategy.Steps, SaveSteps = 1, DataWorkers = workers };
        using var trainer = new LLaVATrainer(peft, data, options);
        var e = Assert.Throws<SampleException>(() => trainer.Train());
        Assert.StartsWith($"Sample 'tiny-4' (record 4): its image '{file}' cannot be used: {file}: ", e.Message, StringComparison.Ordinal);
        Assert.EndsWith("Replace the file, or remove the sample.", e.Message, StringComparison.Ordinal);
        Assert.Equal(("tiny-4", file, SampleProblem.BadImage), (e.SampleId, e.File, e.Problem));
        Assert.Equal(2, trainer.StepsDone);
        Assert.Equal([1, 2], TrainingCheckpoint.All(run.Output).Select(c => c.Step));
        Assert.Equal(Path.Combine(run.Output, "checkpoint-2"), trainer.SaveCheckpoint());
    }

    [Fact]
    public void A_failed_allocation_tells_batch_estimate_and_what_takes_less()
    {
        using var run = new TinyRun();
        var greedy = new Greedy(step: 2);
        using var trainer = new LLaVATrainer(run.Peft, run, Options(run) with { Ordering = SampleOrdering.Sequential }, greedy);
        var e = Assert.Throws<TrainingMemoryException>(() => trainer.Train());
        string checkpoint = Path.Combine(run.Output, "checkpoint-1");
        Assert.StartsWith("In step 2 the memory did not suffice for 2 micro-batches, the largest of 2 samples, ", e.Message, StringComparison.Ordinal);
        Assert.Contains(" supervised and 1 image tile (s4, s5): ", e.Message, StringComparison.Ordinal);
        Assert.Contains($"The weights are those after step 1. The checkpoint {checkpoint} is whole; resume from it with less to hold: BatchSize 1 and twice the AccumulationSteps, or "
            + "GradientCheckpointing, or a MaxLength below 256, or a quantised base (LlavaLoadOptions.Quantization).\nThe estimate for such a step:\nMB ", e.Message, StringComparison.Ordinal);
        Assert.Equal((2, false, checkpoint), (e.Step, e.WeightsMoved, e.Checkpoint));
        Assert.True(e.Estimate!.PeakBytes > 0);
        Assert.Contains(e.Estimate.ToString(), e.Message, StringComparison.Ordinal);
        Assert.IsType<System.Runtime.InteropServices.ExternalException>(e.InnerException);
        using var after = Weights(run);
        TensorAssert.Equal(greedy.Before!, after, "weights");
        Assert.All(run.Peft.TrainableParameters(), p => Assert.Null(p.Parameter.grad));
        greedy.Before!.Dispose();

        using var again = new TinyRun();
        using var resumed = new LLaVATrainer(again.Peft, again, Options(again) with { Ordering = SampleOrdering.Sequential });
        resumed.ResumeFrom(checkpoint);
        Assert.Equal(7, resumed.Train().Steps);
    }

    [Theory]
    [InlineData(4)]
    [InlineData(8)]
    public void A_failed_allocation_on_a_quantised_base_tells_the_estimate_too(int bits)
    {
        using var data = new TinyRun();                       // its samples; the model is another one
        using var tiny = TinyLlava.Create(3, ScalarType.BFloat16);
        var quantization = bits == 4 ? QuantizationConfig.Nf4(ScalarType.BFloat16) : QuantizationConfig.Int8();
        new ModelQuantizer(quantization).Quantize(tiny.Model);
        var lora = new LoraConfig { Rank = 3, Alpha = 7, TargetModules = (string[])["q_proj", "down_proj"], ExcludeModules = TargetModules.Regex(".*vision_tower.*") };
        using var peft = tiny.Model.GetPeftModel(lora, options: new AdapterOptions { UpcastToFloat32 = false });
        var greedy = new Greedy(step: 1);
        var options = data.Options with { Ordering = SampleOrdering.Sequential, BatchSize = 2, Precision = TrainingPrecision.BFloat16 };
        using var trainer = new LLaVATrainer(peft, data, options, greedy);
        var e = Assert.Throws<TrainingMemoryException>(() => trainer.Train());
        greedy.Before!.Dispose();
        Assert.Contains("start again with less to hold: BatchSize 1 and twice the AccumulationSteps, or GradientCheckpointing, or a MaxLength below 256.\nThe estimate for such a step:\nMB ",
            e.Message, StringComparison.Ordinal);
        Assert.EndsWith(e.Estimate!.ToString(), e.Message, StringComparison.Ordinal);
        // The base as the configuration has it under the same quantisation: what the message tells is what a user could have asked before.
        var planned = tiny.Model.Config.EstimateMemory(options, new MemoryAssumptions { Lora = lora, Quantization = quantization, Float32Adapter = false, BaseDtype = ScalarType.BFloat16 });
        Assert.Equal((planned.Peak.Base, planned.Peak.Adapter, planned.TrainedElements), (e.Estimate.Peak.Base, e.Estimate.Peak.Adapter, e.Estimate.TrainedElements));
    }

    [Fact]
    public void A_failed_allocation_without_a_checkpoint_says_how_to_keep_the_weights()
    {
        using var run = new TinyRun();
        using var trainer = new LLaVATrainer(run.Peft, run, run.Options with { BatchSize = 1, AccumulationSteps = 1, GradientCheckpointing = true }, new Greedy(step: 2));
        var e = Assert.Throws<TrainingMemoryException>(() => trainer.Train());
        Assert.StartsWith("In step 2 the memory did not suffice for 1 micro-batch, the largest of 1 sample, ", e.Message, StringComparison.Ordinal);
        Assert.Contains("Call SaveModel to keep them, and start again with less to hold: a MaxLength below 256, or a quantised base", e.Message, StringComparison.Ordinal);
        Assert.Null(e.Checkpoint);
        var moved = new TrainingMemoryException(3, "a batch", weightsMoved: true, null, ["less"], null, new InvalidOperationException("Too much."));
        Assert.Equal("In step 3 the memory did not suffice for a batch: Too much. The update had begun, so weights may be those of before or after it. Start again with less to hold: less.",
            moved.Message);
    }

    private static TrainingOptions Options(TinyRun run) => run.Options with { MaxSteps = 7, SaveStrategy = SaveStrategy.Steps, SaveSteps = 1 };

    private static Tensor Weights(TinyRun run) => cat([.. run.Peft.TrainableParameters().OrderBy(p => p.Name, StringComparer.Ordinal).Select(p => p.Parameter.detach().flatten())]).clone().DetachFromDisposeScope();

    private sealed class AtStart(Action action) : ITrainingObserver
    {
        public void OnStart(TrainingStart start) => action();

        public TrainingVerdict OnStep(StepReport report) => TrainingVerdict.Continue;
    }

    /// <summary>Asks libtorch for more than any machine has, within a step.</summary>
    private sealed class Greedy(int step) : ITrainingObserver
    {
        public Tensor? Before { get; private set; }

        public void OnGradients(int number, IReadOnlyList<ParameterGroup> groups)
        {
            if (number != step) return;
            Before = cat([.. groups.SelectMany(g => g.Parameters).OrderBy(p => p.Name, StringComparer.Ordinal).Select(p => p.Parameter.detach().flatten())]).clone().DetachFromDisposeScope();
            empty(1L << 50).Dispose();
        }

        public TrainingVerdict OnStep(StepReport report) => TrainingVerdict.Continue;
    }
}
