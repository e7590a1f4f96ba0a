using System.Text.Json;
using Peft.Core;
using Peft.Llava;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Quantization.Tests;

[Trait(Goldens.Trait, QuantGolden.Area)]
public sealed class KbitPreparationGoldenTests
{
    public static IEnumerable<TheoryDataRow<string>> Cases() => QuantGolden.Rows("kbit_prep");

    [Theory, MemberData(nameof(Cases))]
    public void Preparation_as_PEFT_does_it(string folder)
    {
        using var golden = new QuantGolden(folder);
        using var scope = NewDisposeScope();
        using var json = JsonDocument.Parse(File.ReadAllBytes(golden.Case.PathOf(golden.Case.Json.GetProperty("files").GetProperty("expected").GetString()!)));
        using var model = GoldenModel.Load(golden);
        var names = (IModuleNames)model;
        bool checkpointing = golden.Flag("use_gradient_checkpointing");
        CheckTable(json.RootElement, model, names, "before");
        var report = model.PrepareModelForKbitTraining(new KbitPreparationOptions { Casts = KbitCasts.EverythingAsPeft, UseGradientCheckpointing = checkpointing });
        CheckTable(json.RootElement, model, names, "after");
        Assert.Equal(json.RootElement.GetProperty("gradient_checkpointing").GetBoolean(), model.GradientCheckpointing);
        Assert.Equal(checkpointing, report.GradientCheckpointing);

        // What the hook of the peer is for: gradients reach layers behind frozen embeddings. Here the checkpoint itself sees to that.
        model.train();
        var inputs = Inputs(model.Config);
        using var batch = GoldenModel.Batch(model.Config, inputs);
        var output = model.Forward(batch, new ForwardOptions { Capture = Captures.Embeddings });
        Assert.Equal(QuantGolden.Dtype(json.RootElement.GetProperty("embedding_output").GetProperty("dtype").GetString()!), output.Embeddings!.dtype);
        var forward = json.RootElement.GetProperty("forward");
        Assert.True(forward.TryGetProperty("logits_dtype", out var dtype), $"{golden.Case.Name}: the peer's forward failed.");
        Assert.Equal(QuantGolden.Dtype(dtype.GetString()!), output.Logits!.dtype);
    }

    /// <summary>The packed weights are parameters in PyTorch and buffers here; all else is compared one to one.</summary>
    private static void CheckTable(JsonElement json, LlavaModel model, IModuleNames names, string when)
    {
        var ours = model.named_parameters().ToDictionary(p => names.ToExternal(p.name), p => p.parameter);
        var packed = ModuleTree.Modules(model).Where(m => m.Module is FourBitLinear or Int8Linear).ToDictionary(m => names.ToExternal(m.Path) + ".weight", m => m.Module);
        foreach (var parameter in json.GetProperty("parameters").EnumerateObject())
        {
            var expected = parameter.Value.GetProperty(when);
            if (expected[2].GetString() != "Parameter")
            {
                var layer = packed[parameter.Name];
                Assert.Equal(expected[0].GetString(), layer is FourBitLinear ? "uint8" : "int8");
                Assert.Equal(layer is FourBitLinear ? ScalarType.Byte : ScalarType.Int8, layer.state_dict()["weight"].dtype);
                continue;
            }
            Assert.True(ours.TryGetValue(parameter.Name, out var own), $"{parameter.Name} is missing.");
            Assert.True(QuantGolden.Dtype(expected[0].GetString()!) == own!.dtype, $"{parameter.Name} {when}: expected {expected[0]}, got {own.dtype}.");
            // A loaded model is frozen from the start here; PyTorch's is not until it is prepared.
            if (when == "after") Assert.Equal(expected[1].GetBoolean(), own.requires_grad);
        }
        Assert.Equal(json.GetProperty("parameters").EnumerateObject().Count(), ours.Count + packed.Count);
    }

    private static Dictionary<string, Tensor> Inputs(LlavaConfig config)
    {
        // The case records no batch: any will do for the dtypes.
        var ids = arange(3, 16).view(1, 13).to(ScalarType.Int64);
        var inputs = new Dictionary<string, Tensor> { ["attention_mask"] = ones_like(ids), ["labels"] = ids.clone(), ["input_ids"] = ids };
        if (config.Vision is null) return inputs;
        ids[0, 2] = LlavaBatchBuilder.ImagePlaceholder;
        inputs["pixel_values"] = randn(1, config.Vision.ChannelCount, config.Vision.ImageSize, config.Vision.ImageSize);
        return inputs;
    }
}
