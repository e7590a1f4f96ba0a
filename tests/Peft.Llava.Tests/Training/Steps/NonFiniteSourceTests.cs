using Peft.Llava;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Training;

/// <summary>A training that meets NaN or infinity says where, names the samples, and leaves weights and checkpoints as they were.</summary>
[Collection(ProcessWideState.Name)]
public sealed class NonFiniteSourceTests
{
    private const string Broken = "first module whose output is not finite is ";

    [Theory]
    [InlineData("model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.gate_proj", "weight")]
    [InlineData("model.layers.1.self_attn.o_proj.weight", "model.layers.1.self_attn.o_proj", "weight")]
    [InlineData("model.layers.0.self_attn.q_proj.lora_A.default.weight", "model.layers.0.self_attn.q_proj", "lora_A.default.weight")]
    [InlineData("model.layers.1.mlp.down_proj.lora_B.default.weight", "model.layers.1.mlp.down_proj", "lora_B.default.weight")]
    [InlineData("model.norm.weight", "model.norm", "weight")]
    [InlineData("lm_head.weight", "lm_head", "weight")]
    [InlineData("model.mm_projector.2.weight", "model.mm_projector.2", "weight")]
    [InlineData("model.vision_tower.vision_tower.vision_model.encoder.layers.0.mlp.fc2.weight", "model.vision_tower.vision_tower.vision_model.encoder.layers.0.mlp.fc2", "weight")]
    public void The_module_that_breaks_first_is_named(string parameter, string module, string own)
    {
        using var run = new TinyRun(dropout: 0.2);
        // In the second step, so that a checkpoint is there; with checkpointing, whose layers run inside a function of their own.
        var options = run.Options with
        {
            Ordering = SampleOrdering.Sequential, WarmupSteps = 0, SaveStrategy = SaveStrategy.Steps, SaveSteps = 1, GradientCheckpointing = true,
        };
        Tensor? before = null;
        var watch = new Watch
        {
            OnReport = _ =>
            {
                using var noGrad = no_grad();
                // One element in the middle of the weight.
                var weight = Assert.Single(run.Model.named_parameters(), p => p.name == parameter).parameter;
                weight.view(-1)[weight.numel() / 2] = double.NaN;
                before = Weights(run);
            },
        };
        using var trainer = new LLaVATrainer(run.Peft, run, options, watch);
        var e = Assert.Throws<NonFiniteLossException>(() => trainer.Train());
        Assert.Equal(module, e.Module);
        Assert.Equal($"In step 2 the loss is NaN; the weights are those after step 1. Samples: s4, s5. The {Broken}{module}; its {own} is not finite. "
            + "Look at these samples, lower the learning rate, or check the base's weights.", e.Message);
        using var after = Weights(run);
        Assert.True(before!.eq(after).logical_or(before.isnan()).all().item<bool>(), "a weight moved");
        before.Dispose();
        Assert.Equal(Path.Combine(run.Output, "checkpoint-1"), trainer.LastCheckpoint);
        Assert.Equal(trainer.LastCheckpoint, TrainingCheckpoint.Latest(run.Output));
        Assert.True(run.Model.training == false && !run.Model.GradientCheckpointing, "the model's mode was not put back");

        using var again = new TinyRun(dropout: 0.2);
        using var resumed = new LLaVATrainer(again.Peft, again, options with { OutputDirectory = again.Output });
        resumed.ResumeFrom(trainer.LastCheckpoint!);
        Assert.Equal(3, resumed.Train().Steps - 1);
    }

    [Fact]
    public void Pixels_are_named_before_any_module()
    {
        using var run = new TinyRun { Broken = { 3 } };
        using var trainer = new LLaVATrainer(run.Peft, run, run.Options with { Ordering = SampleOrdering.Sequential });
        var e = Assert.Throws<NonFiniteLossException>(() => trainer.Train());
        Assert.Null(e.Module);
        Assert.Equal(["s2", "s3"], e.SampleIds);
        Assert.Contains("Samples: s2, s3. The pixels are not finite before any module sees them (tile 1 of 2). Look", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Numbers_that_grow_too_large_are_told_from_broken_weights()
    {
        using var run = new TinyRun();
        using (no_grad())
            foreach (var (name, parameter) in run.Model.named_parameters())
                if (name == "model.layers.1.mlp.up_proj.weight") parameter.fill_(3e38);
        using var trainer = new LLaVATrainer(run.Peft, run, run.Options);
        var e = Assert.Throws<NonFiniteLossException>(() => trainer.Train());
        Assert.Equal("model.layers.1.mlp.up_proj", e.Module);
        Assert.Contains($"The {Broken}model.layers.1.mlp.up_proj; its input and its parameters are finite, so the numbers have grown too large.", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_gradient_that_breaks_behind_a_finite_loss_names_parameter_and_micro_batch()
    {
        using var run = new TinyRun { Unsupervised = { 0, 1 } };
        run.Peft.SetScale("default", 1e12);
        using (no_grad())
            foreach (var (name, parameter) in run.Model.named_parameters())
                if (name == "model.layers.0.self_attn.v_proj.lora_A.default.weight") parameter.fill_(1e36);
        using var trainer = new LLaVATrainer(run.Peft, run, run.Options with { Ordering = SampleOrdering.Sequential });
        using var before = Weights(run);
        var e = Assert.Throws<NonFiniteLossException>(() => trainer.Train());
        Assert.Equal("model.layers.0.self_attn.v_proj.lora_B.default", e.Module);
        Assert.Equal(["s2", "s3"], e.SampleIds);
        Assert.StartsWith("In step 1 the gradient is ", e.Message, StringComparison.Ordinal);
        Assert.Contains("Samples: s2, s3. Every module's output is finite; in the backward pass the gradient of model.layers.0.self_attn.v_proj.lora_B.default.weight is the first "
            + "that is not. Look", e.Message, StringComparison.Ordinal);
        using var after = Weights(run);
        TensorAssert.Equal(before, after, "weights");
    }

    private static Tensor Weights(TinyRun run) => cat([.. run.Model.named_parameters().Select(p => p.parameter.detach().flatten())]).clone().DetachFromDisposeScope();
}
