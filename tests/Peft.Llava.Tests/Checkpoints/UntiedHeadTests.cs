using System.Text.Json.Nodes;
using Peft.Core;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Checkpoints;

/// <summary>A tied model of which one side was trained as a copy of its own is saved as what it is: not tied.</summary>
[Trait("Fault", "lora-12"), Trait("Fault", "files-4")]
public sealed class UntiedHeadTests
{
    private static string BaseLlava => Path.Combine(Goldens.Roots[0], "bitsandbytes", "_base_llava");

    [Theory]
    [InlineData("lm_head", false)]
    [InlineData("lm_head", true)]
    [InlineData("embed_tokens", false)]
    public void Both_weights_are_in_the_file_and_the_configuration_does_not_tie_them(string trained, bool inText)
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        using var folder = new TemporaryFolder();
        using var model = LlavaModel.CreateRandom(Tied(inText), 5);
        var (table, head) = Weights(model);
        TensorAssert.Equal(table, head, "tied");
        var peft = model.GetPeftModel(new LoraConfig { Rank = 2, Alpha = 3, TargetModules = ["q_proj"], ModulesToSave = [trained] });
        Assert.True(model.TiesEmbeddings);
        foreach (var (_, parameter) in peft.TrainableParameters()) parameter.add_(0.25);
        peft.MergeAndUnload();
        Assert.False(model.TiesEmbeddings);
        model.SavePretrained(folder.Path);
        using var again = LlavaModel.Load(folder.Path);
        Assert.False(again.Config.Language.TieWordEmbeddings);
        var document = JsonNode.Parse(File.ReadAllText(folder.File("config.json")))!;
        Assert.False((bool)document["tie_word_embeddings"]!);
        Assert.False((bool)document["text_config"]!["tie_word_embeddings"]!);
        var (gotTable, gotHead) = Weights(again);
        TensorAssert.Equal(trained == "embed_tokens" ? table + 0.25 : table, gotTable, "embedding");
        TensorAssert.Equal(trained == "lm_head" ? head + 0.25 : head, gotHead, "head");
    }

    [Fact]
    public void A_model_that_is_tied_still_is_saved_with_one_weight()
    {
        using var scope = NewDisposeScope();
        using var folder = new TemporaryFolder();
        using var model = LlavaModel.CreateRandom(Tied(inText: false), 5);
        using (var peft = model.GetPeftModel(new LoraConfig { Rank = 2, Alpha = 3, TargetModules = ["q_proj"], ModulesToSave = ["lm_head"], EnsureWeightTying = true })) Assert.True(model.TiesEmbeddings);
        model.SavePretrained(folder.Path);
        using (var reader = TensorFiles.Open(folder.Path)) Assert.DoesNotContain(reader.Entries.Keys, k => k.Contains("lm_head", StringComparison.Ordinal));
        using var again = LlavaModel.Load(folder.Path);
        Assert.True(again.Config.Language.TieWordEmbeddings);
    }

    private static LlavaConfig Tied(bool inText)
    {
        var config = LlavaConfig.Load(BaseLlava);
        var text = (JsonObject)config.ToJson()["text_config"]!.DeepClone();
        text.Remove("tie_word_embeddings");
        if (inText) text["tie_word_embeddings"] = true;
        config = config.With("text_config", text);
        return inText ? config : config.With("tie_word_embeddings", true);
    }

    private static (Tensor Table, Tensor Head) Weights(LlavaModel model)
    {
        var head = ModuleTree.Find(model, "lm_head")!;
        var table = (FrozenEmbedding)ModuleTree.Find(model, "model.embed_tokens")!;
        return (table.Weight.detach().clone(), head is ITiedLinear tied ? tied.Weight.detach().clone() : ((FrozenLinear)head).MaterializeWeight(table.Weight.dtype));
    }
}
