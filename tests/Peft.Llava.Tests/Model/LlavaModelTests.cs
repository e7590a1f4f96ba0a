using Peft.Core;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests;

[Collection(ProcessWideState.Name)]
public sealed class LlavaModelTests
{
    [Theory, InlineData(false), InlineData(true)]
    public void Training_steps_leave_no_tensor_behind(bool checkpointing)
    {
        using var tiny = TinyLlava.Create(3);
        using var peft = tiny.Model.GetPeftModel(new LoraConfig { Rank = 3, Alpha = 7, Dropout = 0.1, TargetModules = tiny.Model.FindAllLinearNames() });
        tiny.Model.SetTrainable(ModelPart.Projector, true);
        tiny.Model.train();
        tiny.Model.GradientCheckpointing = checkpointing;
        using var batch = Batch(tiny);
        LeakGuard.AssertFlat(8, () =>
        {
            using var scope = NewDisposeScope();
            var (sum, count) = tiny.Model.LossSum(batch);
            (sum / count).backward();
            foreach (var (_, parameter) in peft.TrainableParameters()) parameter.grad = null;
        });
    }

    [Fact]
    public void Checkpointing_with_dropout_draws_the_same_masks_in_the_backward()
    {
        using var scope = NewDisposeScope();
        using var tiny = TinyLlava.Create(3);
        using var peft = tiny.Model.GetPeftModel(new LoraConfig { Rank = 3, Alpha = 7, Dropout = 0.4, TargetModules = tiny.Model.FindAllLinearNames() });
        using (no_grad())
            foreach (var (_, parameter) in peft.TrainableParameters()) parameter.uniform_(-0.2, 0.2);
        tiny.Model.train();
        using var batch = Batch(tiny);
        Dictionary<string, Tensor> Run(bool checkpointing)
        {
            tiny.Model.GradientCheckpointing = checkpointing;
            manual_seed(8);
            tiny.Model.LossSum(batch).Sum.backward();
            var gradients = peft.TrainableParameters().ToDictionary(p => p.Name, p => p.Parameter.grad!.clone());
            foreach (var (_, parameter) in peft.TrainableParameters()) parameter.grad = null;
            return gradients;
        }

        var (plain, checkpointed) = (Run(false), Run(true));
        foreach (var (name, gradient) in plain) TensorAssert.Equal(gradient, checkpointed[name], name);
    }

    [Fact]
    public void A_batch_without_images_gives_the_projector_no_gradient_unless_it_always_takes_part()
    {
        using var scope = NewDisposeScope();
        using var tiny = TinyLlava.Create(3);
        tiny.Model.SetTrainable(ModelPart.Projector | ModelPart.Head, true);
        using var batch = new LlavaBatchBuilder(tiny.Model.Config).Build([new("a", [1, 5, 6], [-100, 5, 6], [])]);
        tiny.Model.LossSum(batch).Sum.backward();
        Assert.All(tiny.Model.Parameters(ModelPart.Projector), p => Assert.Null(p.Parameter.grad));
        tiny.Model.LossSum(batch, new ForwardOptions { ProjectorAlwaysTakesPart = true }).Sum.backward();
        Assert.All(tiny.Model.Parameters(ModelPart.Projector), p => Assert.Equal(0, p.Parameter.grad!.abs().sum().ToSingle()));
    }

    [Fact]
    public void Nothing_is_trained_until_a_part_is_made_trainable()
    {
        using var tiny = TinyLlava.Create();
        Assert.DoesNotContain(tiny.Model.named_parameters(), p => p.parameter.requires_grad);
        tiny.Model.SetTrainable(ModelPart.VisionTower, true);
        Assert.All(tiny.Model.named_parameters(), p => Assert.Equal(p.name.Contains("vision_tower", StringComparison.Ordinal), p.parameter.requires_grad));
        Assert.False(tiny.Model.training);
    }

    [Fact]
    public void The_same_seed_makes_the_same_model_and_state_makes_it_again()
    {
        using var scope = NewDisposeScope();
        using var one = TinyLlava.Create(11);
        using var two = TinyLlava.Create(11);
        var state = two.Model.named_parameters().ToDictionary(p => p.name, p => p.parameter.detach().clone().DetachFromDisposeScope());
        foreach (var (name, parameter) in one.Model.named_parameters()) TensorAssert.Equal(parameter, state[name], name);
        using var three = LlavaModel.FromState(two.Model.Config, state);
        using var batch = Batch(one);
        TensorAssert.Equal(one.Model.Forward(batch).Logits!, three.Forward(batch).Logits!, "logits");
        var e = Assert.Throws<CheckpointMismatchException>(() => LlavaModel.FromState(two.Model.Config, new Dictionary<string, Tensor> { ["x"] = ones(2) }));
        Assert.Equal(["x"], e.UnexpectedTensors);
        Assert.Equal(ModelManifest.Of(two.Model.Config).Count, e.MissingTensors.Count);
        Assert.StartsWith("The given state: 65 tensor(s) do not fit the model that the configuration describes.\n  missing: model.embed_tokens.weight\n", e.Message, StringComparison.Ordinal);
        Assert.EndsWith("\n  missing: and 56 more\n  unexpected: x\nCheck that config.json and weights belong together and that no shard is missing.", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Added_tokens_get_the_mean_row_in_embedding_and_head()
    {
        using var scope = NewDisposeScope();
        using var tiny = TinyLlava.Create(2);
        int rows = tiny.Model.Config.Language.VocabularySize;
        var mean = tiny.Model.Model.Table.Weight.mean([0L]);
        tiny.Model.ResizeTokenEmbeddings(rows + 2);
        Assert.Equal(rows + 2, tiny.Model.Config.Language.VocabularySize);
        TensorAssert.Close(mean, tiny.Model.Model.Table.Weight[rows + 1], 1e-6, 0, "new row");
        using var batch = new LlavaBatchBuilder(tiny.Model.Config).Build([new("a", [1, rows + 1], null, [])]);
        Assert.Equal(rows + 2, tiny.Model.Forward(batch).Logits!.shape[1]);
        Assert.Equal(rows + 2, tiny.Model.named_parameters().Single(p => p.name == "lm_head.weight").parameter.shape[0]);
    }

    [Fact]
    public void A_model_without_vision_tower_says_so()
    {
        using var scope = NewDisposeScope();
        using var tiny = TinyLlava.Create();
        using var batch = Batch(tiny);
        var config = LlavaConfig.Parse(new System.Text.Json.Nodes.JsonObject
        {
            ["model_type"] = "llama", ["hidden_size"] = 32, ["intermediate_size"] = 56, ["num_hidden_layers"] = 1, ["num_attention_heads"] = 4,
            ["vocab_size"] = tiny.Model.Config.Language.VocabularySize,
        });
        using var language = LlavaModel.CreateRandom(config, 1);
        var e = Assert.Throws<BatchException>(() => language.Forward(batch));
        Assert.Equal("Sample 'a': has images, but the model has no vision tower. Load a LLaVA checkpoint, or leave the images out.", e.Message);
        var f = Assert.Throws<InvalidOperationException>(() => language.EncodeImages(batch.Pixels!));
        Assert.Equal("The model has no vision tower: it was loaded from a plain language model.", f.Message);
    }

    private static LlavaBatch Batch(TinyLlava tiny) => new LlavaBatchBuilder(tiny.Model.Config).Build(
    [
        new("a", [1, -200, 5, 9, 2], [-100, -200, 5, 9, 2], [new ImageTiles(ones(1, 3, 28, 28), new ImageSize(28, 28))]),
        new("b", [1, 8, 7], [-100, -100, 7], []),
    ]);
}
