using System.Text.Json;
using Peft.Core;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests;

/// <summary>Names of parameters in memory, in files and for adapters, against what the peers list.</summary>
public sealed class CheckpointNamesTests
{
    public static IEnumerable<TheoryDataRow<string>> Original()
        => Goldens.Rows("model", c => c.Kind == "forward" && c.Json.GetProperty("layout").GetString() == "llava");

    public static IEnumerable<TheoryDataRow<string>> HuggingFace()
        => Goldens.Rows("model", c => c.Kind == "forward" && c.Json.GetProperty("layout").GetString() != "llava");

    [Theory, MemberData(nameof(Original)), Trait(Goldens.Trait, "model")]
    public void Original_layout_has_the_recorded_parameters_and_targets(string folder)
    {
        var golden = new GoldenCase(folder);
        var recorded = Parameters(golden);
        using var model = GoldenModels.Load(golden, ScalarType.Float32);
        Assert.Equal(Described(recorded.GetProperty("loaded_model")).Order(),
            model.named_parameters().Select(p => Describe(p.name, p.parameter)).Order());
        Assert.Equal(recorded.GetProperty("find_all_linear_names").EnumerateArray().Select(n => n.GetString()), model.FindAllLinearNames());
        var plan = PeftModel.Preview(model, new LoraConfig { Rank = 3, TargetModules = model.FindAllLinearNames() });
        var language = plan.Targets.Select(t => t.Path).Where(p => !p.Contains("vision_tower", StringComparison.Ordinal));
        Assert.Equal(recorded.GetProperty("lora_target_modules_full").EnumerateArray().Select(n => n.GetString()), language.Order(StringComparer.Ordinal));
    }

    [Theory, MemberData(nameof(HuggingFace)), Trait(Goldens.Trait, "model")]
    public void HuggingFace_layouts_have_the_recorded_parameters_in_every_key_style(string folder)
    {
        var golden = new GoldenCase(folder);
        var recorded = Parameters(golden);
        using var model = GoldenModels.Load(golden, ScalarType.Float32);
        Assert.Equal(Described(recorded.GetProperty("module_tree_5x")).Order(),
            model.named_parameters().Select(p => Describe(model.ToExternal(p.name), p.parameter)).Order());
        string[] inMemory = [.. Names(recorded, "module_tree_5x").Select(n => HuggingFaceKeys.ToInternal(n, HuggingFaceKeyStyle.ModuleTree5)!)];
        Assert.Equal(ModelManifest.Of(model.Config).Select(s => s.Name).Order(), inMemory.Order());
        foreach (var (name, style) in Styles())
        {
            string[] outside = Names(recorded, name);
            Assert.Equal(style, HuggingFaceKeys.Detect(outside));
            Assert.Equal(outside, inMemory.Select(n => HuggingFaceKeys.ToExternal(n, style)));
            Assert.Equal(inMemory, outside.Select(n => HuggingFaceKeys.ToInternal(n, style)));
        }
    }

    [Theory, MemberData(nameof(HuggingFace)), Trait(Goldens.Trait, "model")]
    public void Every_recorded_key_style_loads_with_the_same_weights(string folder)
    {
        using var scope = NewDisposeScope();
        var golden = new GoldenCase(folder);
        var recorded = Parameters(golden);
        using var model = GoldenModels.Load(golden, null);
        var state = model.named_parameters().ToDictionary(p => p.name, p => (Tensor)p.parameter);
        using var folderOfStyle = new TemporaryFolder();
        File.Copy(golden.PathOf("checkpoint/config.json"), folderOfStyle.File("config.json"));
        foreach (var (name, style) in Styles())
        {
            if (!recorded.GetProperty("key_styles").GetProperty(name).GetProperty("loads_in_5x").GetBoolean()) continue;
            SafetensorsWriter.Write(folderOfStyle.File("model.safetensors"),
                state.ToDictionary(p => HuggingFaceKeys.ToExternal(p.Key, style), p => p.Value));
            using var again = LlavaModel.Load(folderOfStyle.Path);
            foreach (var (path, parameter) in again.named_parameters()) TensorAssert.Equal(state[path], parameter, $"{name} {path}");
        }
    }

    private static IEnumerable<(string Name, HuggingFaceKeyStyle Style)> Styles() =>
    [
        ("module_tree_5x", HuggingFaceKeyStyle.ModuleTree5), ("module_tree_4x_late", HuggingFaceKeyStyle.ModuleTree4Late),
        ("classic", HuggingFaceKeyStyle.Classic), ("written_by_5x", HuggingFaceKeyStyle.WrittenBy5),
    ];

    private static JsonElement Parameters(GoldenCase golden)
        => JsonDocument.Parse(File.ReadAllBytes(golden.PathOf(golden.Json.GetProperty("parameters").GetString()!))).RootElement;

    private static string[] Names(JsonElement recorded, string style)
        => [.. recorded.GetProperty("names").GetProperty(style).EnumerateArray().Select(n => n.GetString()!)];

    private static IEnumerable<string> Described(JsonElement list) => list.EnumerateArray().Select(p =>
        $"{p.GetProperty("name").GetString()} {string.Join("x", p.GetProperty("shape").EnumerateArray())} {p.GetProperty("dtype").GetString()}");

    private static string Describe(string name, Tensor tensor)
        => $"{name} {string.Join("x", tensor.shape)} {(tensor.dtype == ScalarType.Float32 ? "F32" : tensor.dtype.ToString())}";
}
