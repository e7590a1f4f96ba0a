using System.Text.Json;
using Peft.Core;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests;

/// <summary>Gradients of LoRA and projector through whole models, with and without checkpointing, against the recorded peers.</summary>
public sealed class GradientGoldenTests
{
    public static IEnumerable<TheoryDataRow<string>> Cases() => Goldens.Rows("model", c => c.Kind == "gradient");

    [Theory, MemberData(nameof(Cases)), Trait(Goldens.Trait, "model")]
    public void Gradients_equal_the_recorded_ones(string folder)
    {
        using var scope = NewDisposeScope();
        var golden = new GoldenCase(folder);
        var json = golden.Json;
        var tolerance = json.GetProperty("tolerance_fp32");
        double atol = tolerance.GetProperty("atol").GetDouble(), rtol = tolerance.GetProperty("rtol").GetDouble();
        using var expected = golden.Tensors(json.GetProperty("expected_fp32").GetString()!);
        var plain = Run(golden, ScalarType.Float32, checkpointing: false);
        foreach (string name in expected.Entries.Keys)
        {
            Assert.True(plain.TryGetValue(name, out var got) && got is not null, $"{name} got no gradient.");
            TensorAssert.Close(expected.Load(name), got, atol, rtol, name);
        }
        string[] missing = [.. json.GetProperty("trainable_without_gradient").EnumerateArray().Select(n => n.GetString()!)];
        Assert.Equal(missing.Order(), plain.Where(g => g.Value is null).Select(g => g.Key).Order());

        var checkpointed = Run(golden, ScalarType.Float32, checkpointing: true);
        Assert.Equal(plain.Keys, checkpointed.Keys);
        foreach (var (name, gradient) in plain)
        {
            if (gradient is null) Assert.Null(checkpointed[name]);
            else TensorAssert.Equal(gradient, checkpointed[name]!, name + " with checkpointing");
        }

        if (!json.TryGetProperty("expected_bf16", out var file16)) return;
        using var expected16 = golden.Tensors(file16.GetString()!);
        var tolerance16 = json.GetProperty("tolerance_bf16");
        var got16 = Run(golden, ScalarType.BFloat16, checkpointing: false);
        foreach (string name in expected16.Entries.Keys)
        {
            var spread = IsaSpread.Of(golden, name);
            TensorAssert.Close(expected16.Load(name), got16[name]!, tolerance16.GetProperty("atol").GetDouble(), 0, name + " (bf16)", spread);
            TensorAssert.RelativeRms(expected16.Load(name), got16[name]!, tolerance16.GetProperty("rms_rel").GetDouble(), name + " (bf16)", spread);
        }
    }

    /// <summary>Loss and gradients by PEFT's names; null for a trained parameter without one.</summary>
    private static Dictionary<string, Tensor?> Run(GoldenCase golden, ScalarType dtype, bool checkpointing)
    {
        var json = golden.Json;
        bool llava = json.GetProperty("layout").GetString() == "llava";
        using var model = GoldenModels.Load(GoldenModels.Sibling(golden, json.GetProperty("model").GetString()!), dtype);
        using var peft = PeftModel.Load(model, golden.PathOf(json.GetProperty("adapter").GetString()!),
            options: new AdapterOptions { Trainable = true, UpcastToFloat32 = false });
        model.SetTrainable(ModelPart.Projector, json.GetProperty("projector_trainable").GetBoolean());
        model.train();
        model.GradientCheckpointing = checkpointing;
        var trainable = peft.TrainableParameters().ToList();
        var recorded = json.GetProperty("trainable").EnumerateArray()
            .Select(t => $"{t.GetProperty("name").GetString()} {string.Join("x", t.GetProperty("shape").EnumerateArray())}").ToHashSet();
        // The llava-hf cases list only what got a gradient.
        if (!llava) recorded.UnionWith(trainable.Where(t => Missing(json, t.Name)).Select(Describe));
        Assert.Equal(recorded.Order(), trainable.Select(Describe).Order());

        using var inputs = golden.Tensors(json.GetProperty("inputs").GetString()!);
        using var batch = new LlavaBatchBuilder(model.Config, new LlavaBatchOptions
        {
            TextOnlySamplesOwnAnImage = llava,
            MergeTiles = llava ? json.GetProperty("images_form").GetString() == "list" : null,
        }).Build(GoldenModels.Samples(inputs, model.Config));
        var (sum, count) = model.LossSum(batch, new ForwardOptions { ProjectorAlwaysTakesPart = llava });
        var loss = sum / count;
        loss.backward();
        var results = new Dictionary<string, Tensor?> { ["loss"] = loss.detach() };
        foreach (var (name, parameter) in trainable) results[name] = parameter.grad?.clone();
        return results;
    }

    private static bool Missing(JsonElement json, string name)
        => json.GetProperty("trainable_without_gradient").EnumerateArray().Any(n => n.GetString() == name);

    private static string Describe((string Name, TorchSharp.Modules.Parameter Parameter) p) => $"{p.Name} {string.Join("x", p.Parameter.shape)}";
}
