using System.Text.Json;
using Peft.Llava.Tests.Text;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Data;

public sealed class DatasetGoldenTests
{
    public static IEnumerable<TheoryDataRow<string>> Cases() => Goldens.Rows(TextGoldens.Area, c => c.Kind == "dataset");

    public static IEnumerable<TheoryDataRow<string>> Samples() => Goldens.Rows("training", c => c.Name == "samples");

    [Theory, Trait(Goldens.Trait, TextGoldens.Area), MemberData(nameof(Cases))]
    public void Lengths_items_and_batches_equal_LLaVAs(string folder)
    {
        using var scope = NewDisposeScope();
        var golden = new GoldenCase(folder);
        var dataset = Dataset(golden);
        Assert.Equal(TextGoldens.Ints(golden.Json.GetProperty("lengths")), dataset.Lengths);
        Assert.Equal(TextGoldens.Ints(golden.Json.GetProperty("modality_lengths")), dataset.ModalityLengths);
        var items = Enumerable.Range(0, dataset.Count).Select(dataset.Encode).ToList();
        Assert.Equal(TextGoldens.Ints(golden.Json.GetProperty("item_lengths")), items.Select(i => i.Length));
        Assert.Equal(golden.Json.GetProperty("warnings").EnumerateArray().Select(w => w.GetString()!),
            items.Where(i => i.Text.Mismatch is not null).Select(i => i.Text.Mismatch!.ToString()));

        var collator = new LlavaCollator(dataset.Encoder.Processor.Tokenizer, dataset.Encoder.Options);
        using var expected = golden.Tensors(golden.Json.GetProperty("expected").GetString()!);
        var tolerance = golden.Json.GetProperty("tolerance").GetProperty("images");
        int number = 0;
        foreach (var batch in golden.Json.GetProperty("batches").EnumerateArray())
        {
            using var got = collator.Stack([.. TextGoldens.Ints(batch.GetProperty("indices")).Select(i => items[i])]);
            Assert.Equal(TextGoldens.Ints(batch.GetProperty("shape")).Select(n => (long)n), got.InputIds.shape);
            using var uncut = new LlavaCollator(dataset.Encoder.Processor.Tokenizer.WithModelMaxLength(null)).Stack(
                [.. TextGoldens.Ints(batch.GetProperty("indices")).Select(i => items[i])]);
            CheckCut(expected.Load($"batch{number}.input_ids"), got.InputIds, uncut.InputIds, $"batch {number} ids");
            CheckCut(expected.Load($"batch{number}.labels"), got.Labels, uncut.Labels, $"batch {number} labels");
            TensorAssert.Equal(expected.Load($"batch{number}.attention_mask"), got.AttentionMask, $"batch {number} mask");
            TensorAssert.Close(expected.Load($"batch{number}.images"), cat([.. got.Images], 0),
                tolerance.GetProperty("atol").GetDouble(), tolerance.GetProperty("rtol").GetDouble(), $"batch {number} images");
            number++;
        }
        items.ForEach(i => i.Dispose());
    }

    [Theory, Trait(Goldens.Trait, "training"), MemberData(nameof(Samples))]
    public void Training_samples_have_LLaVAs_ids_labels_and_pixels(string folder)
    {
        using var scope = NewDisposeScope();
        var golden = new GoldenCase(folder);
        string common = Path.Combine(golden.AreaFolder, "common"), data = Path.Combine(common, "data");
        var settings = golden.Json.GetProperty("settings");
        var tokenizer = LlamaTokenizer.FromFolder(Path.Combine(common, "base-llava"),
            new TokenizerOptions { ModelMaxLength = settings.GetProperty("model_max_length").GetInt32() });
        tokenizer = tokenizer.WithPadToken(settings.GetProperty("pad_token").GetString()!);
        var images = new ClipImageProcessor(ImageProcessorConfig.Load(Path.Combine(common, "clip-tower", "preprocessor_config.json")),
            AspectPolicies.Parse(settings.GetProperty("image_aspect_ratio").GetString()));
        using var expected = golden.Tensors("expected.safetensors");
        using var pixels = golden.Tensors("pixel_values.safetensors");
        var pixelTolerance = golden.Json.GetProperty("tolerance").GetProperty("pixel_values");
        foreach (var version in golden.Json.GetProperty("versions").EnumerateObject())
        {
            string file = Path.Combine(data, version.Name == "plain" ? "plain.json" : "conv.json");
            var processor = new LlavaProcessor(tokenizer, images, Templates.ByName(version.Name));
            var dataset = LlavaDataset.FromJson(file, Path.Combine(data, "images"), processor, DataOptions.LlavaExact);
            Assert.Equal(TextGoldens.Ints(version.Value.GetProperty("lengths")), dataset.Lengths);
            Assert.Equal(TextGoldens.Ints(version.Value.GetProperty("modality_lengths")), dataset.ModalityLengths);
            var rows = version.Value.GetProperty("rows").EnumerateArray().ToList();
            Assert.Equal(rows.Count, dataset.Count);
            for (int i = 0; i < rows.Count; i++)
            {
                using var item = dataset.Encode(i);
                string id = rows[i].GetProperty("id").GetString()!, name = $"{version.Name}/{id}";
                Assert.Equal(id, item.Sample.Id);
                Assert.Equal(rows[i].GetProperty("tokens").GetInt32(), item.Length);
                Assert.Equal(rows[i].GetProperty("supervised").GetInt32(), item.Text.Labels.Count(l => l != LabelBuilder.Ignored));
                TensorAssert.Equal(expected.Load(name + "/input_ids"), tensor(item.Text.Ids.ToArray(), int32), name + " ids");
                TensorAssert.Equal(expected.Load(name + "/labels"), tensor(item.Text.Labels.ToArray(), int32), name + " labels");
                if (!item.Sample.HasImage) continue;
                TensorAssert.Close(pixels.Load(item.Sample.Images[0]), item.Images[0].Pixels[0], pixelTolerance.GetProperty("atol").GetDouble(),
                    pixelTolerance.GetProperty("rtol").GetDouble(), name + " pixels");
            }
        }
    }

    /// <summary>
    /// A batch that is cut was recorded from a view of the longer one, and the recorder wrote the view's memory: the file holds the first
    /// B * L elements of the uncut batch. The mask, a tensor of its own, is recorded as it is and proves where the cut lies.
    /// </summary>
    private static void CheckCut(Tensor expected, Tensor got, Tensor uncut, string what)
    {
        TensorAssert.Equal(uncut[.., TensorIndex.Slice(0, got.shape[1])], got, what + ", cut");
        bool asView = uncut.shape[1] > got.shape[1] && !expected.eq(got).all().ToBoolean();
        TensorAssert.Equal(expected.flatten(), (asView ? uncut : got).flatten()[TensorIndex.Slice(0, got.numel())], what);
    }

    private static LlavaDataset Dataset(GoldenCase golden)
    {
        var json = golden.Json;
        var tokenizer = TextGoldens.LabelTokenizer(golden, json.GetProperty("tokenizer").GetString()!)
            .WithModelMaxLength(json.GetProperty("model_max_length").GetInt32())
            .WithPadToken(json.GetProperty("pad_token").GetString()!.Split(' ')[0]);
        var images = new ClipImageProcessor(ImageProcessorConfig.Clip(json.GetProperty("crop").GetInt32()),
            AspectPolicies.Parse(json.GetProperty("image_aspect_ratio").GetString()));
        var processor = new LlavaProcessor(tokenizer, images, Templates.ByName(json.GetProperty("template").GetString()!));
        return LlavaDataset.FromJson(golden.PathOf(json.GetProperty("data").GetString()!), golden.PathOf(json.GetProperty("images").GetString()!),
            processor, DataOptions.LlavaExact);
    }
}
