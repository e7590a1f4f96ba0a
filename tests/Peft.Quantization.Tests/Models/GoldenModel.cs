using System.Text.Json;
using Peft.Llava;
using Peft.Testing;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Quantization.Tests;

/// <summary>The models and batches of the model-level cases.</summary>
internal static class GoldenModel
{
    /// <summary>The settings as transformers reads them: without a skip list lm_head alone is left.</summary>
    public static QuantizationConfig Config(QuantGolden golden)
        => QuantizationConfigJson.Read(golden.Settings.GetProperty("quantization_config"), golden.Case.Name);

    public static ScalarType LoadDtype(QuantGolden golden) => QuantGolden.Dtype(golden.String("load_dtype"));

    public static LlavaModel Load(QuantGolden golden)
    {
        var model = LlavaModel.Load(
            golden.Case.PathOf(golden.String("base")), new LlavaLoadOptions { Dtype = LoadDtype(golden), Quantization = Config(golden) });
        UsePeersConstant(model);
        return model;
    }

    /// <summary>The int8 recordings have bitsandbytes' CPU constant in them.</summary>
    public static void UsePeersConstant(nn.Module model)
    {
        foreach (var layer in model.modules().OfType<Int8Linear>()) layer.Rescaling = Int8Rescaling.BitsandbytesCpu;
    }

    /// <summary>A recorded batch; <paramref name="prefix"/> stands before the names.</summary>
    public static LlavaBatch Batch(LlavaConfig config, IReadOnlyDictionary<string, Tensor> inputs, string prefix = "")
    {
        using var scope = NewDisposeScope();
        var ids = inputs[prefix + "input_ids"];
        var mask = inputs[prefix + "attention_mask"].to(ScalarType.Bool);
        var samples = new List<LlavaBatchSample>();
        for (int row = 0; row < ids.shape[0]; row++)
        {
            long[] Row(Tensor t) => t[row].masked_select(mask[row]).data<long>().ToArray();
            var images = inputs.TryGetValue(prefix + "pixel_values", out var pixels)
                ? new[] { new ImageTiles(pixels.narrow(0, row, 1), new ImageSize(config.Vision!.ImageSize, config.Vision.ImageSize)) }
                : [];
            samples.Add(new LlavaBatchSample($"row {row}", Row(ids), Row(inputs[prefix + "labels"]), images));
        }
        return new LlavaBatchBuilder(config, new LlavaBatchOptions { PaddingSide = PaddingSide.Right }).Build(samples);
    }

    /// <summary>Recorded (rows, columns, ...) values at the tokens that are there, in the order of the packed rows.</summary>
    public static Tensor Packed(Tensor recorded, Tensor mask) => recorded[mask.to(ScalarType.Bool)];

    public static IReadOnlyList<string> Names(JsonElement array) => [.. array.EnumerateArray().Select(e => e.GetString()!).Order(StringComparer.Ordinal)];
}
