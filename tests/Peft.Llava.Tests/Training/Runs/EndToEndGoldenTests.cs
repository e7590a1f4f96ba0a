using Peft.Core;
using Peft.Llava;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Training;

/// <summary>What LLaVA's run wrote, loaded as LLaVA's builder loads it, merged: logits and greedy tokens of prompts with pictures.</summary>
public sealed class EndToEndGoldenTests
{
    public static IEnumerable<TheoryDataRow<string>> Cases => Goldens.Rows("training", c => c.Json.TryGetProperty("prompts", out _));

    [Theory, MemberData(nameof(Cases)), Trait(Goldens.Trait, "training")]
    public void A_trained_folder_answers_as_in_llava(string folder)
    {
        var golden = new GoldenCase(folder);
        string area = golden.AreaFolder, common = Path.Combine(area, "common"), baseFolder = Path.Combine(common, "base-llava");
        using var model = LlavaModel.Load(baseFolder, new LlavaLoadOptions { VisionTower = Path.Combine(common, "clip-tower"), Dtype = ScalarType.Float32 });
        using (var peft = TrainedFolder.Load(model, Path.Combine(area, golden.Json.GetProperty("depends_on").GetString()!, "output")))
            peft.MergeAndUnload();
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        using (var merged = golden.Tensors("merged.safetensors"))
        {
            var weights = model.named_parameters().ToDictionary(p => p.name, p => p.parameter);
            foreach (string name in merged.Entries.Keys) TensorAssert.Close(merged.Load(name), weights[name], 1e-6, 1e-6, name);
        }
        var processor = LlavaProcessor.FromFolder(baseFolder, new LlavaProcessorOptions { VisionFolder = Path.Combine(common, "clip-tower") });
        using var expected = golden.Tensors("expected.safetensors");
        double atol = golden.Json.GetProperty("tolerance").GetProperty("logits").GetProperty("atol").GetDouble();
        int n = 0;
        foreach (var prompt in golden.Json.GetProperty("prompts").EnumerateArray())
        {
            List<long> ids = [.. processor.Tokenizer.TokenizeWithImages(prompt.GetProperty("prompt").GetString()!).Ids.Select(i => (long)i)];
            Assert.Equal(expected.Load($"{n}/input_ids").to(ScalarType.Int64).data<long>().ToArray(), ids);
            var image = processor.ReadImage(Path.Combine(common, "data", "images", prompt.GetProperty("image").GetString()!));
            using var tiles = processor.Images!.ToTensor(image);
            var logits = Logits(model, ids, tiles, image.Size);
            var last = expected.Load($"{n}/logits");
            TensorAssert.Close(last, logits.narrow(0, logits.shape[0] - last.shape[0], last.shape[0]), atol, 0, $"prompt {n} logits");

            // As many tokens as recorded, whatever comes: that run keeps the end token out (min_new_tokens). transformers puts the start token before.
            int[] wanted = [.. expected.Load($"{n}/generated").to(ScalarType.Int32).data<int>()];
            if (wanted[0] == model.Config.Language.BosTokenId) wanted = wanted[1..];
            var got = new List<int>();
            while (got.Count < wanted.Length)
            {
                using var inner = NewDisposeScope();
                var scores = Logits(model, [.. ids, .. got.Select(t => (long)t)], tiles, image.Size)[-1];
                foreach (int eos in model.Config.Language.EosTokenIds) scores[eos] = float.NegativeInfinity;
                got.Add((int)scores.argmax().ToInt64());
            }
            Assert.Equal(wanted, got);
            n++;
        }
    }

    private static Tensor Logits(LlavaModel model, List<long> ids, Tensor pixels, ImageSize size)
    {
        using var scope = NewDisposeScope();
        using var batch = new LlavaBatchBuilder(model.Config).Build([new LlavaBatchSample("prompt", ids, null, [new ImageTiles(pixels, size)])]);
        return model.Forward(batch).Logits!.MoveToOuterDisposeScope();
    }
}
