using System.Text.Json;
using System.Text.Json.Nodes;
using Peft.Core;
using Peft.Testing;
using TorchSharp;
using TorchSharp.Modules;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests;

/// <summary>What LLaVA's own train() splits, names and writes, and how its builder reads it back.</summary>
public sealed class TrainedByLlavaTests
{
    private const string Area = "peft";

    public static IEnumerable<TheoryDataRow<string>> All => Goldens.Rows(Area, c => c.Kind == "llava");

    public static IEnumerable<TheoryDataRow<string>> Written => Goldens.Rows(Area, c => c.Kind == "llava" && c.Json.GetProperty("adapter").ValueKind == JsonValueKind.String);

    [Theory, MemberData(nameof(All)), Trait(Goldens.Trait, Area)]
    public void Parameters_and_their_split_are_those_of_LLaVA(string folder)
    {
        var golden = new GoldenCase(folder);
        var states = States(golden);
        using var scope = NewDisposeScope();
        var dtype = golden.Json.GetProperty("settings").GetProperty("bf16").GetBoolean() ? ScalarType.BFloat16 : ScalarType.Float32;
        // LLaVA brings its tower to bfloat16 or to float16, never to float32.
        var towerDtype = dtype == ScalarType.BFloat16 ? dtype : ScalarType.Float16;
        using var model = Build(golden, dtype, towerDtype, projectorDtype: ScalarType.Float32);
        using var peft = model.GetPeftModel(SettingsOf(golden, model), options: new AdapterOptions { UpcastToFloat32 = false });
        // LLaVA loads its tower after LoRA is on and freezes it; it trains the projector.
        model.SetTrainable(ModelPart.VisionTower, false);
        model.SetTrainable(ModelPart.Projector, true);

        var recorded = states.GetProperty("named_parameters").EnumerateArray().Select(Row).Order(StringComparer.Ordinal);
        Assert.Equal(recorded, peft.NamedParameters().Select(p => Row(p.Name, p.Parameter)).Order(StringComparer.Ordinal));
        var keys = states.GetProperty("keys");
        CheckKeys(keys, "none", PeftState.GetLoraState(peft.NamedParameters(), LoraBias.None));
        CheckKeys(keys, "all", PeftState.GetLoraState(peft.NamedParameters(), LoraBias.All));
        CheckKeys(keys, "non_lora", PeftState.GetNonLoraTrainables(peft.NamedParameters()));
        CheckKeys(keys, "non_lora_all", PeftState.GetNonLoraTrainables(peft.NamedParameters(), trainedOnly: false));
        // LLaVA's own loop for lora_only fails; what PEFT means is the factors and the biases of the adapted layers.
        Assert.Equal(JsonValueKind.String, keys.GetProperty("lora_only").ValueKind);
        var biases = states.GetProperty("named_parameters").EnumerateArray().Select(p => p.GetProperty("name").GetString()!).Where(n => n.EndsWith(".base_layer.bias", StringComparison.Ordinal));
        Assert.Equal(keys.GetProperty("none").EnumerateArray().Select(k => k.GetString()!).Concat(biases).Order(StringComparer.Ordinal),
            PeftState.GetLoraState(peft.NamedParameters(), LoraBias.LoraOnly).Keys.Order(StringComparer.Ordinal));
        if (states.TryGetProperty("adapter_file", out var file))
            Assert.Equal(file.EnumerateArray().Select(FileRow), peft.GetAdapterState("default").Select(t => FileRow(t.Key, t.Value)).Order(StringComparer.Ordinal));
        if (states.TryGetProperty("non_lora_trainables_file", out var others))
        {
            Assert.Equal(others.EnumerateArray().Select(FileRow),
                PeftState.GetNonLoraTrainables(peft.NamedParameters()).Select(t => FileRow(t.Key, t.Value)).Order(StringComparer.Ordinal));
        }
    }

    [Theory, MemberData(nameof(Written)), Trait(Goldens.Trait, Area)]
    public void A_run_is_read_back_as_by_LLaVAs_builder(string folder)
    {
        var golden = new GoldenCase(folder);
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        string run = golden.PathOf(golden.Json.GetProperty("adapter").GetString()!);
        var loaded = golden.Json.GetProperty("loaded");
        using var model = Build(golden, Dtype(loaded, "language_dtype"), Dtype(loaded, "vision_tower_dtype"), Dtype(loaded, "projector_dtype"));
        // The builder's order: the other trained values, then the adapter in the base's dtype, then the merge.
        using (var others = NonLoraTrainables.Load(run)) others.ApplyTo(model);
        var tower = model.Parameters(ModelPart.VisionTower).ToDictionary(p => p.Name, p => p.Parameter.detach().clone());
        PeftModel.Load(model, run, options: new AdapterOptions { UpcastToFloat32 = false }).MergeAndUnload(safe: true);
        // With bias "all" the adapter file has the tower's biases, rounded to bfloat16; the builder loads the tower last, from its own folder.
        foreach (var (name, parameter) in model.Parameters(ModelPart.VisionTower)) parameter.copy_(tower[name]);

        using var expected = golden.Tensors("expected.safetensors");
        var weights = model.named_parameters().ToDictionary(p => p.name, p => p.parameter);
        foreach (string name in expected.Entries.Keys.Where(k => k.StartsWith("merged/", StringComparison.Ordinal)))
            Compare(golden, "merged", expected.Load(name), weights[name["merged/".Length..]], name);
        var valid = expected.Load("valid").to(ScalarType.Bool);
        CompareLogits(golden, model, expected.Load("logits_float16")[valid], "logits_float16");
        using var wide = LlavaModel.FromState(model.Config, weights.ToDictionary(w => w.Key, w => w.Value.detach().to(ScalarType.Float32, copy: true).DetachFromDisposeScope()));
        wide.RotaryTableDtype = model.Dtype;                  // transformers 4.37 converts the weights only
        CompareLogits(golden, wide, expected.Load("logits_float32")[valid], "logits_float32");
    }

    private static void CompareLogits(GoldenCase golden, LlavaModel model, Tensor expected, string group)
    {
        using var inputs = golden.Tensors("inputs.safetensors");
        var ids = inputs.Load("input_ids");
        var mask = inputs.Load("attention_mask").to(ScalarType.Bool);
        var images = inputs.Load("images");
        var samples = Enumerable.Range(0, (int)ids.shape[0]).Select(b => new LlavaBatchSample(
            $"row {b}", ids[b].masked_select(mask[b]).data<long>().ToArray(), null,
            [new ImageTiles(images.narrow(0, b, 1), new ImageSize((int)images.shape[3], (int)images.shape[2]))])).ToList();
        using var batch = new LlavaBatchBuilder(model.Config).Build(samples);
        Compare(golden, group, expected, model.Forward(batch).Logits!, group);
    }

    private static void Compare(GoldenCase golden, string group, Tensor expected, Tensor got, string what)
    {
        var tolerance = golden.Json.GetProperty("tolerance").GetProperty(group);
        TensorAssert.Close(expected, got, tolerance.GetProperty("atol").GetDouble(), tolerance.GetProperty("rtol").GetDouble(), what);
    }

    private static void CheckKeys(JsonElement keys, string name, OrderedDictionary<string, Tensor> state)
        => Assert.Equal(keys.GetProperty(name).EnumerateArray().Select(k => k.GetString()), state.Keys.Order(StringComparer.Ordinal));

    private static LoraConfig SettingsOf(GoldenCase golden, LlavaModel model)
    {
        var settings = golden.Json.GetProperty("settings");
        return new LoraConfig
        {
            Rank = settings.GetProperty("r").GetInt32(),
            Alpha = settings.GetProperty("alpha").GetDouble(),
            Bias = settings.GetProperty("bias").GetString() switch { "all" => LoraBias.All, "lora_only" => LoraBias.LoraOnly, _ => LoraBias.None },
            TargetModules = model.FindAllLinearNames(),
            TaskType = "CAUSAL_LM",
        };
    }

    // The language model, the tower and a projector of the right size: its values come from the run, or do not matter.
    private static LlavaModel Build(GoldenCase golden, ScalarType dtype, ScalarType towerDtype, ScalarType projectorDtype)
    {
        string lm = golden.PathOf(golden.Json.GetProperty("model_base").GetString()!), tower = golden.PathOf(golden.Json.GetProperty("vision_tower").GetString()!);
        var vision = VisionOf(tower);
        var document = JsonNode.Parse(File.ReadAllBytes(Path.Combine(lm, "config.json")))!.AsObject();
        document["model_type"] = "llava_llama";
        document["mm_vision_tower"] = tower;
        document["use_mm_proj"] = true;
        document["mm_projector_type"] = "mlp2x_gelu";
        document["mm_hidden_size"] = vision.HiddenSize;
        document["mm_vision_select_layer"] = -2;
        document["mm_vision_select_feature"] = "patch";
        document["tokenizer_padding_side"] = "right";
        var config = LlavaConfig.Parse(document, golden.Name).WithVision(vision);
        var state = new Dictionary<string, Tensor>();
        Read(Path.Combine(lm, "model.safetensors"), "", dtype, state);
        Read(Path.Combine(tower, "model.safetensors"), "model.vision_tower.vision_tower.", towerDtype, state);
        long width = config.Language.HiddenSize;
        state["model.mm_projector.0.weight"] = randn(width, vision.HiddenSize, projectorDtype).DetachFromDisposeScope();
        state["model.mm_projector.0.bias"] = randn(width, projectorDtype).DetachFromDisposeScope();
        state["model.mm_projector.2.weight"] = randn(width, width, projectorDtype).DetachFromDisposeScope();
        state["model.mm_projector.2.bias"] = randn(width, projectorDtype).DetachFromDisposeScope();
        return LlavaModel.FromState(config, state);
    }

    private static VisionConfig VisionOf(string tower)
    {
        var fields = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(tower, "config.json"))).RootElement;
        int Field(string name) => fields.GetProperty(name).GetInt32();
        return new VisionConfig
        {
            HiddenSize = Field("hidden_size"), IntermediateSize = Field("intermediate_size"), LayerCount = Field("num_hidden_layers"), HeadCount = Field("num_attention_heads"),
            ImageSize = Field("image_size"), PatchSize = Field("patch_size"), NormEpsilon = fields.GetProperty("layer_norm_eps").GetDouble(),
        };
    }

    private static void Read(string file, string prefix, ScalarType dtype, Dictionary<string, Tensor> state)
    {
        using var reader = SafetensorsReader.Open(file);
        foreach (string name in reader.Entries.Keys.Where(k => is_floating_point(reader.Entries[k].Dtype)))
        {
            using var tensor = reader.Load(name);
            state[prefix + name] = tensor.to(dtype, copy: true).DetachFromDisposeScope();
        }
    }

    private static JsonElement States(GoldenCase golden) => JsonDocument.Parse(File.ReadAllBytes(golden.PathOf("states.json"))).RootElement;

    private static ScalarType Dtype(JsonElement loaded, string name) => loaded.GetProperty(name).GetString() switch
    {
        "float16" => ScalarType.Float16,
        "bfloat16" => ScalarType.BFloat16,
        _ => ScalarType.Float32,
    };

    private static string Row(JsonElement row)
        => $"{row.GetProperty("name")} ({string.Join(", ", row.GetProperty("shape").EnumerateArray())}) {row.GetProperty("dtype")} {row.GetProperty("trainable").GetBoolean()}";

    private static string Row(string name, Parameter parameter) => $"{FileRow(name, parameter)} {parameter.requires_grad}";

    private static string FileRow(JsonElement row) => $"{row.GetProperty("name")} ({string.Join(", ", row.GetProperty("shape").EnumerateArray())}) {row.GetProperty("dtype")}";

    private static string FileRow(string name, Tensor tensor) => $"{name} ({string.Join(", ", tensor.shape)}) {tensor.dtype.ToString().ToLowerInvariant()}";
}
