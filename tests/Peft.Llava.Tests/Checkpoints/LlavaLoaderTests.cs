using System.Text.Json.Nodes;
using Peft.Core;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests;

public sealed class LlavaLoaderTests
{
    private static GoldenCase Golden(string name) => Goldens.Cases("model").First(c => c.Name == name);

    [Fact]
    public void All_faults_of_a_checkpoint_are_told_at_once()
    {
        using var scope = NewDisposeScope();
        using var folder = new TemporaryFolder();
        using (var tiny = TinyLlava.Create())
        {
            var state = tiny.Model.named_parameters().Where(p => LlavaModel.PartOf(p.name) != ModelPart.VisionTower).ToDictionary(p => p.name, p => (Tensor)p.parameter);
            state.Remove("model.norm.weight");
            state["model.layers.0.mlp.up_proj.weight"] = ones(3, 4);
            state["model.layers.7.mlp.up_proj.weight"] = ones(3, 4);
            SafetensorsWriter.Write(folder.File("model.safetensors"), state);
            File.WriteAllText(folder.File("config.json"), tiny.Model.Config.ToJson().ToJsonString());
        }
        var golden = Golden("llava-mlp3x");
        var e = Assert.Throws<CheckpointMismatchException>(() => LlavaModel.Load(folder.Path, new LlavaLoadOptions
        {
            VisionTower = Path.Combine(golden.AreaFolder, "towers", "clip-56"),
        }));
        Assert.Equal(["model.norm.weight"], e.MissingTensors);
        Assert.Equal(["model.layers.7.mlp.up_proj.weight"], e.UnexpectedTensors);
        Assert.Contains("model.layers.0.mlp.up_proj.weight: the file has (3, 4), the model wants (56, 32)", e.ShapeFaults);
        Assert.StartsWith($"{folder.Path}: {2 + e.ShapeFaults.Count} tensor(s) do not fit the model that the configuration describes.", e.Message, StringComparison.Ordinal);
        Assert.EndsWith("Check that config.json and weights belong together and that no shard is missing.", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_missing_vision_tower_is_named_with_the_folders_looked_for()
    {
        var golden = Golden("llava-v15");
        var e = Assert.Throws<VisionTowerNotFoundException>(() => LlavaModel.Load(golden.PathOf("checkpoint")));
        Assert.Equal("towers/clip-56", e.Tower);
        Assert.Equal([golden.PathOf("checkpoint/towers/clip-56"), Path.GetFullPath("towers/clip-56")], e.Tried);
        Assert.EndsWith("Download it (a CLIP folder, for example `hf download openai/clip-vit-large-patch14-336 --local-dir clip-vit-large-patch14-336`) and name it with LlavaLoadOptions.VisionTower, or --vision_tower on the command line.",
            e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Sizes_of_a_tower_that_cannot_be_read_are_named()
    {
        using var tower = new TemporaryFolder();
        File.WriteAllText(tower.File("config.json"), "{\"vision_config\": {\"hidden_size\": \"many\", \"image_size\": 28, \"patch_size\": 7}}");
        var e = Assert.Throws<InvalidConfigurationException>(() => LlavaModel.Load(Golden("llava-v15").PathOf("checkpoint"), new LlavaLoadOptions { VisionTower = tower.Path }));
        Assert.StartsWith(tower.File("config.json"), e.Message, StringComparison.Ordinal);
        Assert.Contains("hidden_size", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_tower_beside_the_checkpoint_is_found_by_its_relative_name()
    {
        using var model = LlavaModel.Load(Path.Combine(Repository.Root, "samples", "data", "base"));
        Assert.Equal(48, model.Config.Vision!.ImageSize);
        Assert.Equal(ScalarType.BFloat16, model.Dtype);
    }

    [Fact]
    public void A_plain_language_model_loads_without_vision()
    {
        using var scope = NewDisposeScope();
        using var folder = new TemporaryFolder();
        using var tiny = TinyLlava.Create(5);
        var language = tiny.Model.named_parameters()
            .Where(p => LlavaModel.PartOf(p.name) is ModelPart.Decoder or ModelPart.Embedding or ModelPart.Head).ToDictionary(p => p.name, p => (Tensor)p.parameter);
        SafetensorsWriter.Write(folder.File("model.safetensors"), language);
        var document = tiny.Model.Config.ToJson();
        foreach (string field in document.Select(f => f.Key).Where(k => k.StartsWith("mm_", StringComparison.Ordinal)).ToList()) document.Remove(field);
        document["model_type"] = "llama";
        File.WriteAllText(folder.File("config.json"), document.ToJsonString());
        using var model = LlavaModel.Load(folder.Path);
        Assert.Equal(CheckpointLayout.Llama, model.Config.Layout);
        Assert.Null(model.VisionTower);
        var sample = new LlavaBatchSample("a", [1, 5, 9], null, []);
        using var batch = new LlavaBatchBuilder(model.Config).Build([sample]);
        using var same = new LlavaBatchBuilder(tiny.Model.Config).Build([sample]);
        TensorAssert.Equal(tiny.Model.Forward(same).Logits!, model.Forward(batch).Logits!, "logits");
        var e = Assert.Throws<BatchException>(() => new LlavaBatchBuilder(model.Config)
            .Build([sample with { TokenIds = [1, -200], Images = [new ImageTiles(zeros(1, 3, 28, 28), new ImageSize(28, 28))] }]));
        Assert.Equal("Sample 'a': has an image, but the model has no vision tower. Load a LLaVA checkpoint, or leave the image out.", e.Message);
    }

    [Fact]
    public void Weights_whose_dtype_is_kept_stay_mapped_and_the_file_is_never_changed()
    {
        var golden = Golden("llava-mlp3x");
        string file = golden.PathOf("checkpoint/model.safetensors");
        byte[] before = File.ReadAllBytes(file);
        using (var model = GoldenModels.Load(golden, null))
        using (no_grad())
            foreach (var (_, parameter) in model.named_parameters()) parameter.zero_();
        Assert.Equal(before, File.ReadAllBytes(file));
    }

    [Fact]
    public void A_storage_is_asked_for_every_linear_layer()
    {
        var golden = Golden("llava-v15");
        var asked = new List<string>();
        using var model = LlavaModel.Load(golden.PathOf("checkpoint"), new LlavaLoadOptions
        {
            VisionTower = Path.Combine(golden.AreaFolder, "towers", "clip-56"),
            Storage = (path, _, _) =>
            {
                asked.Add(path);
                return null;
            },
        });
        Assert.Equal(model.named_modules().Where(m => m.module is FrozenLinear).Select(m => m.name).Order(), asked.Order());
        Assert.Contains("model.layers.2.self_attn.o_proj", asked);
        Assert.Contains("lm_head", asked);
    }

    [Fact]
    public void Loading_and_disposing_leaves_no_tensor_behind()
    {
        var golden = Golden("llava-v16-anyres");
        LeakGuard.AssertFlat(3, () => GoldenModels.Load(golden, ScalarType.Float32).Dispose());
        LeakGuard.AssertFlat(3, () => GoldenModels.Load(golden, null).Dispose());
    }
}
