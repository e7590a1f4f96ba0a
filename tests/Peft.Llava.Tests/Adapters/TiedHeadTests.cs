using System.Text.Json.Nodes;
using Peft.Core;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests;

/// <summary>Adapters on a model whose head is its embedding: the head has no weight of its own.</summary>
public sealed class TiedHeadTests : IDisposable
{
    private static readonly LoraConfig Config = new() { Rank = 3, Alpha = 7, TargetModules = ["q_proj"] };

    private readonly DisposeScope _scope = NewDisposeScope();
    private readonly string _folder = Directory.CreateTempSubdirectory("peft-tied-").FullName;
    private readonly LlavaModel _model = LlavaModel.CreateRandom(
        LlavaConfig.Parse(
            new JsonObject
            {
                ["architectures"] = new JsonArray("LlamaForCausalLM"), ["model_type"] = "llama", ["vocab_size"] = 31, ["hidden_size"] = 24, ["intermediate_size"] = 40, ["num_hidden_layers"] = 2,
                ["num_attention_heads"] = 3, ["max_position_embeddings"] = 64, ["rms_norm_eps"] = 1e-5, ["bos_token_id"] = 1, ["eos_token_id"] = 2, ["tie_word_embeddings"] = true,
            },
            "tied"),
        seed: 4);
    private readonly LlavaBatch _batch;

    public TiedHeadTests() => _batch = new LlavaBatchBuilder(_model.Config).Build([new("a", [1, 5, 9, 3], [-100, 5, 9, 3], []), new("b", [1, 9], [-100, 9], [])]);

    public void Dispose()
    {
        _batch.Dispose();
        _model.Dispose();
        _scope.Dispose();
        Directory.Delete(_folder, recursive: true);
    }

    [Fact]
    public void LoRA_on_it_adds_to_the_scores_alone_and_a_merge_reaches_the_embedding()
    {
        using var noGrad = no_grad();
        var table = _model.Model.Table.Weight;
        var (before, weight) = (Scores(), table.clone());
        var peft = _model.GetPeftModel(Config with { TargetModules = ["lm_head"] });
        Assert.Equal("adapter 'default' is on lm_head, but model.embed_tokens and lm_head share one weight; a merge changes both (ensure_weight_tying adapts both)", Assert.Single(peft.Irregularities));
        Assert.Equal(["base_model.model.lm_head.lora_A.default.weight", "base_model.model.lm_head.lora_B.default.weight"], peft.TrainableParameters().Select(p => p.Name));
        Randomise(peft);
        var layer = peft.LayerAt("lm_head")!;
        var delta = layer.DeltaWeight("default");
        Assert.Equal([31L, 24], delta.shape);
        var states = _model.Forward(_batch, new() { Capture = Captures.FinalNorm }).FinalNorm!;
        var active = Scores();
        TensorAssert.Close(before + states.matmul(delta.t()), active, 1e-4, 1e-4, "scores");
        peft.Save(_folder);
        using (var file = SafetensorsReader.Open(Path.Combine(_folder, "adapter_model.safetensors")))
            Assert.Equal(["base_model.model.lm_head.base_layer.weight", "base_model.model.lm_head.lora_A.weight", "base_model.model.lm_head.lora_B.weight"], file.Entries.Keys.Order(StringComparer.Ordinal));
        peft.Merge();
        TensorAssert.Close(weight + delta, table, 1e-6, 1e-6, "the embedding's table");
        peft.Unmerge();
        TensorAssert.Equal(weight, table, "the embedding's table, taken out");
        peft.Dispose();
        TensorAssert.Equal(before, Scores(), "unloaded");
        using (var loaded = PeftModel.Load(_model, _folder, "again")) TensorAssert.Equal(active, Scores(), "loaded");
        Assert.IsType<TiedHead>(_model.Head);
    }

    [Fact]
    public void LoRA_on_both_and_a_training_step_with_a_trained_table_have_the_gradients_of_one_weight()
    {
        using var peft = _model.GetPeftModel(Config with { TargetModules = ["embed_tokens"], EnsureWeightTying = true });
        Assert.Equal(["model.embed_tokens", "lm_head"], peft.Layers.Select(l => l.ModulePath));
        Randomise(peft);
        _model.SetTrainable(ModelPart.Embedding, trainable: true);
        _model.LossSum(_batch).Sum.backward();
        LoraAdapter embedding = peft.LayerAt("model.embed_tokens")!.Adapters["default"], head = peft.LayerAt("lm_head")!.Adapters["default"];
        // The factors adapt the same table twice, each use with a gradient of its own: what the table gets, both get together through the chain rule.
        var table = _model.Model.Table.Weight.grad!;
        TensorAssert.Close(embedding.B.t().matmul(table.t()) * embedding.Scaling, embedding.A.grad! + head.B.grad!.t(), 1e-4, 1e-4, "A");
        TensorAssert.Close(table.t().matmul(embedding.A.t()) * embedding.Scaling, embedding.B.grad! + head.A.grad!.t(), 1e-4, 1e-4, "B");
        using (no_grad()) embedding.A.add_(1);
        TensorAssert.Equal(embedding.A.t(), head.B, "the head's B, which is the embedding's A");
        _model.LossSum(_batch).Sum.backward();             // also after the numbers were changed in place
    }

    [Fact]
    public void Trained_in_full_it_gets_a_weight_of_its_own()
    {
        var before = Scores().detach();
        using var peft = _model.GetPeftModel(Config with { ModulesToSave = ["lm_head"] });
        var copy = peft.TrainableParameters().Single(p => p.Name == "base_model.model.lm_head.modules_to_save.default.weight").Parameter;
        TensorAssert.Equal(before, Scores().detach(), "output at the start");
        _model.LossSum(_batch).Sum.backward();
        Assert.True(copy.grad!.abs().max().ToDouble() > 0);
        var table = _model.Model.Table.Weight.clone();
        using (no_grad()) copy.mul_(2);
        TensorAssert.Close(before * 2, Scores().detach(), 1e-5, 1e-5, "scores of twice the weight");
        TensorAssert.Equal(table, _model.Model.Table.Weight, "the embedding");
        peft.MergeAndUnload();
        TensorAssert.Close(before * 2, Scores().detach(), 1e-5, 1e-5, "merged for good");
    }

    [Theory, InlineData(false), InlineData(true)]
    public void Rows_of_tokens_and_a_kept_tie_reach_embedding_and_head(bool whole)
    {
        var config = whole ? Config with { ModulesToSave = ["lm_head"], EnsureWeightTying = true }
            : Config with { TrainableTokens = new Dictionary<string, IReadOnlyList<long>> { [""] = [9, 30, 5] } };
        var table = _model.Model.Table.Weight;
        var moved = table.clone();
        using (no_grad())
        {
            if (whole) moved.add_(randn_like(moved) * 0.2);
            else moved.index_copy_(0, tensor(new long[] { 9, 30, 5 }), randn(3, 24));
        }
        var before = Scores().detach();
        Tensor active;
        using (var peft = _model.GetPeftModel(config))
        {
            var trained = peft.TrainableParameters().Single(p => !p.Name.Contains("lora_", StringComparison.Ordinal)).Parameter;
            using (no_grad()) trained.copy_(whole ? moved : moved.index_select(0, tensor(new long[] { 9, 30, 5 })));
            active = Scores().detach();
            Assert.Equal(3, new TextGenerator(_model).Generate(_batch, new() { MaxNewTokens = 3, EosTokenIds = [] }).StepCount);
        }
        TensorAssert.Equal(before, Scores().detach(), "unloaded");
        using (no_grad()) table.copy_(moved);
        TensorAssert.Close(Scores().detach(), active, 1e-5, 1e-5, "scores of the changed table");
    }

    private static void Randomise(PeftModel peft)
    {
        using var noGrad = no_grad();
        foreach (var (_, parameter) in peft.TrainableParameters().ToList()) parameter.copy_(randn_like(parameter) * 0.3);
    }

    private Tensor Scores() => _model.Forward(_batch, new()).Logits!;
}
