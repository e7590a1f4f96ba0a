using Peft.Core;
using Peft.Llava;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Training;

[Collection(ProcessWideState.Name)]
public sealed class ResumeTests
{
    // 7 samples, 4 batches an epoch, 2 steps an epoch: checkpoints fall into the middle and onto the end of epochs.
    private static TrainingOptions Options(TinyRun run) => run.Options with { MaxSteps = 7, SaveStrategy = SaveStrategy.Steps, SaveSteps = 1, LoggingSteps = 2 };

    [Theory]
    [InlineData(1, StepWeighting.SupervisedTokens, OptimizerKind.AdamW)]
    [InlineData(4, StepWeighting.SupervisedTokens, OptimizerKind.AdamW)]
    [InlineData(3, StepWeighting.LlavaExact, OptimizerKind.AdamW)]
    [InlineData(5, StepWeighting.SupervisedTokens, OptimizerKind.Adafactor)]
    [InlineData(5, StepWeighting.SupervisedTokens, OptimizerKind.AdamWTransformers)]
    public void A_resumed_run_ends_with_the_bits_of_the_unbroken_one(int from, StepWeighting weighting, OptimizerKind optimizer)
    {
        using var whole = new TinyRun(dropout: 0.3);
        var options = Options(whole) with { Weighting = weighting, Optimizer = optimizer, AccumulationSteps = weighting == StepWeighting.LlavaExact ? 3 : 2 };
        var wholeWatch = new Watch();
        using (var trainer = new LLaVATrainer(whole.Peft, whole, options, wholeWatch))
        {
            trainer.Train();
            trainer.SaveModel();
        }

        using var again = new TinyRun(dropout: 0.3);
        var watch = new Watch();
        using var resumed = new LLaVATrainer(again.Peft, again, options with { OutputDirectory = again.Output, DataWorkers = 2 }, watch);
        resumed.ResumeFrom(Path.Combine(whole.Output, TrainingCheckpoint.NameOf(from)));
        Assert.Equal(from, resumed.StepsDone);
        resumed.Train();
        resumed.SaveModel();
        Assert.Equal(wholeWatch.Reports.Skip(from).Select(r => (r.Step, r.Loss, r.GradNorm, r.Epoch)), watch.Reports.Select(r => (r.Step, r.Loss, r.GradNorm, r.Epoch)));
        foreach (string file in new[] { "adapter_model.safetensors", "config.json" })
            Assert.True(File.ReadAllBytes(Path.Combine(whole.Output, file)).AsSpan().SequenceEqual(File.ReadAllBytes(Path.Combine(again.Output, file))), $"{file} differs.");
        var (a, b) = (Projector(whole), Projector(again));
        TensorAssert.Equal(a, b, "projector");
        Assert.Equal(wholeWatch.Summary!.MeanLoss, watch.Summary!.MeanLoss, 1e-12);
    }

    [Fact]
    public void Every_checkpoint_answers_alone_and_the_oldest_go()
    {
        using var run = new TinyRun();
        var watch = new Watch();
        using var trainer = new LLaVATrainer(run.Peft, run, Options(run) with { SaveTotalLimit = 2 }, watch);
        trainer.Train();
        Assert.Equal([6, 7], TrainingCheckpoint.All(run.Output).Select(c => c.Step));
        string newest = TrainingCheckpoint.Latest(run.Output)!;
        Assert.Equal(TrainingCheckpoint.NameOf(7), Path.GetFileName(newest));
        foreach (string file in new[] { "adapter_model.safetensors", "adapter_config.json", "non_lora_trainables.bin", "config.json", "trainer_state.json", "optimizer.safetensors", "training_state.json" })
            Assert.True(File.Exists(Path.Combine(newest, file)), $"no {file}");

        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        using var batch = run.Batch([0, 2, 4]);
        double trained = run.Model.LossSum(batch).Sum.ToDouble();
        using var fresh = TinyLlava.Create(3);
        double untrained = fresh.Model.LossSum(batch).Sum.ToDouble();
        using var loaded = TrainedFolder.Load(fresh.Model, newest);
        Assert.Equal(trained, fresh.Model.LossSum(batch).Sum.ToDouble());
        Assert.NotEqual(trained, untrained);
    }

    [Fact]
    public void The_whole_model_and_the_projector_alone_resume_too()
    {
        foreach (var parts in new[] { TrainableParts.Full(), TrainableParts.ProjectorOnly() })
        {
            var weights = new List<Tensor>();
            foreach (int from in new[] { 0, 3 })
            {
                using var run = new TinyRun();
                run.Peft.Dispose();
                var options = Options(run) with { Trainable = parts, OutputDirectory = Path.Combine(Path.GetDirectoryName(run.Output)!, "peft-resume-" + parts.LanguageModel), MaxShardBytes = 100_000 };
                using var trainer = new LLaVATrainer(run.Model, run, options);
                if (from > 0) trainer.ResumeFrom(Path.Combine(options.OutputDirectory, TrainingCheckpoint.NameOf(from)));
                trainer.Train();
                if (parts.LanguageModel)
                {
                    string newest = Path.Combine(options.OutputDirectory, TrainingCheckpoint.NameOf(7));
                    Assert.True(File.Exists(Path.Combine(newest, "model.safetensors.index.json")) && !File.Exists(Path.Combine(newest, "model.safetensors")), "not in several files");
                    using var index = TensorFiles.Open(newest);
                    Assert.Equal(run.Model.named_parameters().Select(p => p.name).Order(StringComparer.Ordinal), index.Entries.Keys.Order(StringComparer.Ordinal));
                }
                weights.Add(cat([.. run.Model.named_parameters().Select(p => p.parameter.detach().flatten())]).clone());
                if (from > 0) Directory.Delete(options.OutputDirectory, recursive: true);
            }
            TensorAssert.Equal(weights[0], weights[1], parts.ToString());
            weights.ForEach(w => w.Dispose());
        }
    }

    [Fact]
    public void A_cancelled_run_leaves_a_checkpoint_of_its_last_step()
    {
        using var run = new TinyRun(dropout: 0.2);
        using var source = new CancellationTokenSource();
        var options = Options(run) with { SaveSteps = 100 };
        using (var trainer = new LLaVATrainer(run.Peft, run, options, new Watch { OnReport = r => { if (r.Step == 3) source.Cancel(); } }))
        {
            var e = Assert.Throws<TrainingCanceledException>(() => trainer.Train(source.Token));
            Assert.Equal(e.Checkpoint, trainer.LastCheckpoint);
            Assert.Equal($"The training was cancelled after 3 of 7 steps. The model has the weights of these steps; resume from {e.Checkpoint}, or call SaveModel() for the results "
                + "alone.", e.Message);
        }
        Assert.Equal(Path.Combine(run.Output, TrainingCheckpoint.NameOf(3)), TrainingCheckpoint.Latest(run.Output));
    }

    [Fact]
    public void Another_base_another_data_set_and_other_rules_are_refused_together()
    {
        using var run = new TinyRun();
        using (var trainer = new LLaVATrainer(run.Peft, run, Options(run) with { MaxSteps = 1 })) trainer.Train();
        string checkpoint = TrainingCheckpoint.Latest(run.Output)!;
        using var other = new TinyRun(seed: 4, count: 8);
        using var resumed = new LLaVATrainer(other.Peft, other, Options(other) with { BatchSize = 3, Seed = 7, MaxSteps = 1 });
        using var before = cat([.. other.Peft.TrainableParameters().Select(p => p.Parameter.detach().flatten())]).clone();
        var e = Assert.Throws<StateMismatchException>(() => resumed.ResumeFrom(checkpoint));
        Assert.Equal(["BatchSize is 3 and was 2", "Seed is 7 and was 42", "the data set has 8 samples and had 7", "the base model is another one"], e.Problems);
        Assert.Equal($"The checkpoint {checkpoint} does not fit this training (4 problems): BatchSize is 3 and was 2; Seed is 7 and was 42; the data set has 8 samples "
            + "and had 7; the base model is another one. Resume with the model and the options it was saved with.", e.Message);
        using var after = cat([.. other.Peft.TrainableParameters().Select(p => p.Parameter.detach().flatten())]).clone();
        TensorAssert.Equal(before, after, "weights");
        Assert.Equal(0, resumed.StepsDone);
    }

    [Fact]
    public void A_folder_that_is_no_checkpoint_is_refused()
    {
        using var run = new TinyRun();
        using var trainer = new LLaVATrainer(run.Peft, run, Options(run));
        var e = Assert.Throws<CheckpointException>(() => trainer.ResumeFrom(run.Output));
        Assert.Equal($"The checkpoint {run.Output} can't be used: it holds no training_state.json, so it is not a checkpoint of a run (a folder of results alone can't be "
            + "resumed from). Give a checkpoint-N folder of this trainer; TrainingCheckpoint.Latest finds the newest.", e.Message);
        File.WriteAllText(Path.Combine(run.Output, "training_state.json"), "{");
        Assert.Contains("its training_state.json can't be read (", Assert.Throws<CheckpointException>(() => trainer.ResumeFrom(run.Output)).Message, StringComparison.Ordinal);
        Assert.Equal(run.Output, e.Folder);
    }

    [Fact]
    public void A_checkpoint_of_another_version_is_refused()
    {
        using var run = new TinyRun();
        using (var trainer = new LLaVATrainer(run.Peft, run, Options(run) with { MaxSteps = 1 })) trainer.Train();
        string checkpoint = TrainingCheckpoint.Latest(run.Output)!, state = Path.Combine(checkpoint, "training_state.json");
        File.WriteAllText(state, File.ReadAllText(state).Replace("\"Version\": 3", "\"Version\": 9", StringComparison.Ordinal));
        using var resumed = new LLaVATrainer(run.Peft, run, Options(run));
        Assert.EndsWith("its training_state.json has version 9 and this library writes version 3. Resume with the library that wrote it.",
            Assert.Throws<CheckpointException>(() => resumed.ResumeFrom(checkpoint)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Weights_that_a_checkpoint_lacks_are_named()
    {
        using var run = new TinyRun();
        using (var trainer = new LLaVATrainer(run.Peft, run, Options(run) with { MaxSteps = 1 })) trainer.Train();
        string checkpoint = TrainingCheckpoint.Latest(run.Output)!;
        File.Delete(Path.Combine(checkpoint, "non_lora_trainables.bin"));
        using var resumed = new LLaVATrainer(run.Peft, run, Options(run) with { MaxSteps = 1 });
        var e = Assert.Throws<StateMismatchException>(() => resumed.ResumeFrom(checkpoint));
        Assert.StartsWith($"The checkpoint {checkpoint} does not fit this training (4 problems): 'base_model.model.model.mm_projector.0.weight' is in no file;", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_trainer_that_has_trained_cannot_resume()
    {
        using var run = new TinyRun();
        using var trainer = new LLaVATrainer(run.Peft, run, Options(run) with { MaxSteps = 1 });
        trainer.Train();
        Assert.Equal("This trainer has trained already. Make a new one and call its ResumeFrom before Train.",
            Assert.Throws<InvalidOperationException>(() => trainer.ResumeFrom(TrainingCheckpoint.Latest(run.Output)!)).Message);
    }

    private static Tensor Projector(TinyRun run) => cat([.. run.Model.Parameters(ModelPart.Projector).Select(p => p.Parameter.detach().flatten())]);
}
