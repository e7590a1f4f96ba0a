using System.Text.Json;
using Peft.Core;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests;

/// <summary>Forward passes of whole models in all layouts, against the recorded peers.</summary>
public sealed class ForwardGoldenTests
{
    public static IEnumerable<TheoryDataRow<string>> Cases() => Goldens.Rows("model", c => c.Kind == "forward");

    [Theory, MemberData(nameof(Cases)), Trait(Goldens.Trait, "model")]
    public void Forward_equals_the_recorded_run(string folder)
    {
        var golden = new GoldenCase(folder);
        foreach (var run in golden.Json.GetProperty("runs").EnumerateArray()) Check(golden, run);
    }

    private static void Check(GoldenCase golden, JsonElement run)
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        string name = run.GetProperty("name").GetString()!;
        JsonElement? overrides = run.TryGetProperty("config_overrides", out var o) ? o : null;
        using var inputs = golden.Tensors(run.GetProperty("inputs").GetString()!);
        if (run.TryGetProperty("error", out _))
        {
            using var refused = GoldenModels.Load(golden, ScalarType.Float32, overrides);
            string text = name == "pretrain-start-end"
                ? "tune_mm_mlp_adapter together with mm_use_im_start_end is not implemented (LLaVA's merge raises NotImplementedError): pretrain the projector without start and end ids.\n"
                    + "Correct the file, or pass corrected values with LlavaLoadOptions.Config."
                : "is text-only and has 0 images, where LLaVA's rule wants exactly one (dummy) image per text-only sample; without it, later samples would get the wrong images. "
                    + "Add it, or switch LlavaBatchOptions.TextOnlySamplesOwnAnImage off.";
            Assert.EndsWith(text, Assert.ThrowsAny<PeftException>(() => Batch(refused.Config, inputs, run).Dispose()).Message, StringComparison.Ordinal);
            return;
        }
        using var expected32 = golden.Tensors(run.GetProperty("expected_fp32").GetString()!);
        using (var model = GoldenModels.Load(golden, ScalarType.Float32, overrides))
        {
            using var batch = Batch(model.Config, inputs, run);
            var got = Results(model, batch, inputs, expected32);
            var tolerance = run.GetProperty("tolerance_fp32");
            foreach (string tensor in expected32.Entries.Keys)
            {
                if (!got.TryGetValue(tensor, out var value)) Assert.Fail($"{name}: nothing to compare with {tensor}.");
                var expected = Expected(expected32, tensor, batch.Layout);
                if (expected.is_floating_point())
                    TensorAssert.Close(expected, value, tolerance.GetProperty("atol").GetDouble(), tolerance.GetProperty("rtol").GetDouble(), $"{name} {tensor}");
                else
                    TensorAssert.Equal(expected, value.to(expected.dtype), $"{name} {tensor}");
            }
        }
        if (!run.TryGetProperty("expected_bf16", out var file16)) return;
        using var expected16 = golden.Tensors(file16.GetString()!);
        using var model16 = GoldenModels.Load(golden, ScalarType.BFloat16, overrides);
        using var batch16 = Batch(model16.Config, inputs, run);
        var got16 = Results(model16, batch16, inputs, expected32);
        foreach (var tolerance in run.GetProperty("tolerance_bf16").EnumerateObject())
        {
            double atol = tolerance.Value.GetProperty("atol").GetDouble(), rms = tolerance.Value.GetProperty("rms_rel").GetDouble();
            // Meant against either recording; where the bf16 one holds the tensor, it is the one.
            var wanted = expected16.Entries.ContainsKey(tolerance.Name) ? expected16 : expected32;
            string what = $"{name} {tolerance.Name} (bf16)";
            var spread = IsaSpread.Of(golden, $"{name}/{tolerance.Name}");
            TensorAssert.Close(Expected(wanted, tolerance.Name, batch16.Layout), got16[tolerance.Name], atol, 0, what, spread);
            TensorAssert.RelativeRms(Expected(wanted, tolerance.Name, batch16.Layout), got16[tolerance.Name], rms, what, spread);
        }
    }

    private static LlavaBatch Batch(LlavaConfig config, SafetensorsReader inputs, JsonElement run)
    {
        bool llava = config.Layout == CheckpointLayout.Original;
        var options = new LlavaBatchOptions
        {
            TextOnlySamplesOwnAnImage = llava && inputs.Entries.ContainsKey("pixel_values"),
            MergeTiles = llava ? run.GetProperty("images_form").GetString() == "list" : null,
            // transformers keeps the padding of its input.
            PaddingSide = llava ? null : inputs.Load("attention_mask")[.., 0].to(ScalarType.Bool).all().ToBoolean() ? PaddingSide.Right : PaddingSide.Left,
        };
        return new LlavaBatchBuilder(config, options).Build(GoldenModels.Samples(inputs, config));
    }

    private static Dictionary<string, Tensor> Results(LlavaModel model, LlavaBatch batch, SafetensorsReader inputs, SafetensorsReader expected)
    {
        var output = model.Forward(batch, new ForwardOptions { Capture = Captures.All, Loss = true });
        var last = model.Forward(batch, new ForwardOptions { Logits = LogitRows.Last });
        var got = new Dictionary<string, Tensor>
        {
            ["inputs_embeds"] = output.Embeddings!,
            ["final_norm"] = output.FinalNorm!,
            ["logits"] = output.Logits!,
            ["logits_last"] = last.Logits!,
            ["loss"] = output.Loss!,
            ["labels"] = batch.Layout.Pad(batch.Labels!, -100),
            ["attention_mask"] = batch.Layout.AttentionMask(),
        };
        for (int i = 0; i < output.LayerOutputs.Count; i++) got[$"layer_{i + 1}"] = output.LayerOutputs[i];
        if (output.VisionFeatures is not null) got["vision_hidden"] = output.VisionFeatures;
        if (output.ProjectedFeatures is not null) got["projected"] = output.ProjectedFeatures;
        if (output.ImageFeatures is not null) got["image_features"] = output.ImageFeatures;
        // Without images the peer hands its arguments through: positions are the columns. The merge counts each row from its first token.
        bool merged = inputs.Entries.ContainsKey("pixel_values");
        var positions = merged ? cat([.. batch.Layout.Lengths.Select(n => arange(n))], 0) : batch.Layout.PositionIds();
        got["position_ids"] = merged || !expected.Entries.ContainsKey("position_ids")
            ? batch.Layout.Pad(positions) : batch.Layout.Pad(positions) + expected.Load("position_ids") * batch.Layout.AttentionMask().logical_not();
        var (sum, count) = model.LossSum(batch);
        TensorAssert.Close(output.Loss!, sum / count, 1e-5, 1e-6, "loss sum / count");
        return got;
    }

    private static Tensor Expected(SafetensorsReader file, string name, SequenceLayout layout)
    {
        var tensor = file.Load(name);
        bool perToken = name is "inputs_embeds" or "final_norm" or "logits" || name.StartsWith("layer_", StringComparison.Ordinal);
        // Layout hf stores the final norm alone per token; what stands at padding depends on the attention kernel and is not compared.
        return perToken ? layout.Unpad(tensor) : tensor;
    }
}
