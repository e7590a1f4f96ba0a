using System.Text.Json;
using System.Text.Json.Nodes;
using Peft.Core;
using Peft.Testing;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava.Tests;

/// <summary>Opens the recorded models of area "model" and turns their recorded inputs into batches.</summary>
internal static class GoldenModels
{
    public static LlavaConfig Config(GoldenCase golden, JsonElement? overrides = null)
    {
        var document = JsonNode.Parse(File.ReadAllBytes(golden.PathOf("checkpoint/config.json")))!.AsObject();
        if (overrides is { ValueKind: JsonValueKind.Object } values)
            foreach (var value in values.EnumerateObject()) document[value.Name] = JsonNode.Parse(value.Value.GetRawText());
        return LlavaConfig.Parse(document, golden.Name);
    }

    public static LlavaModel Load(GoldenCase golden, ScalarType? dtype, JsonElement? overrides = null)
    {
        var config = Config(golden, overrides);
        string? tower = config.Layout == CheckpointLayout.Original ? Path.Combine(golden.AreaFolder, config.VisionTowerName!) : null;
        return LlavaModel.Load(golden.PathOf("checkpoint"), new LlavaLoadOptions { Config = config, Dtype = dtype, VisionTower = tower });
    }

    public static GoldenCase Sibling(GoldenCase golden, string name) => new(Path.Combine(golden.AreaFolder, name));

    /// <summary>The samples of a recorded batch: the rows without their padding, with their images.</summary>
    public static IReadOnlyList<LlavaBatchSample> Samples(SafetensorsReader inputs, LlavaConfig config, bool masked = true)
    {
        using var scope = NewDisposeScope();
        var ids = inputs.Load("input_ids");
        var mask = masked ? inputs.Load("attention_mask").to(ScalarType.Bool) : ones_like(ids, ScalarType.Bool);
        var labels = inputs.Entries.ContainsKey("labels") ? inputs.Load("labels") : null;
        var rows = Enumerable.Range(0, (int)ids.shape[0]).Select(b => Row(ids, b)).ToList();
        var images = new Queue<ImageTiles>(Images(inputs, config));
        int[] counts = ImagesPerSample(inputs, config, rows, [.. images]);
        return [.. rows.Select((row, b) => new LlavaBatchSample(
            $"row {b}", row, labels is null ? null : Row(labels, b),
            [.. Enumerable.Range(0, counts[b]).Where(_ => images.Count > 0).Select(_ => images.Dequeue())]))];

        long[] Row(Tensor t, int b) => t[b].masked_select(mask[b]).data<long>().ToArray();
    }

    private static IEnumerable<ImageTiles> Images(SafetensorsReader inputs, LlavaConfig config)
    {
        if (!inputs.Entries.ContainsKey("pixel_values")) yield break;
        var pixels = inputs.Load("pixel_values").to(ScalarType.Float32).DetachFromDisposeScope();
        var sizes = inputs.Entries.ContainsKey("image_sizes") ? inputs.Load("image_sizes") : null;
        var counts = inputs.Entries.ContainsKey("patch_counts") ? inputs.Load("patch_counts").data<long>().ToArray() : null;
        bool next = config.Layout == CheckpointLayout.HuggingFaceNext;
        long images = counts?.Length ?? pixels.shape[0], tile = 0;
        for (int i = 0; i < images; i++)
        {
            var size = sizes is null ? new ImageSize(config.Vision?.ImageSize ?? 1, config.Vision?.ImageSize ?? 1)
                : next ? new ImageSize((int)sizes[i, 1].ToInt64(), (int)sizes[i, 0].ToInt64())
                : new ImageSize((int)sizes[i, 0].ToInt64(), (int)sizes[i, 1].ToInt64());
            if (next)
            {
                var (columns, rows) = AnyResolutionGrid.GridShape(size, config.GridPinpoints, config.Vision!.ImageSize);
                yield return new ImageTiles(pixels[i].narrow(0, 0, 1 + columns * rows).DetachFromDisposeScope(), size);
            }
            else
            {
                yield return new ImageTiles(pixels.narrow(0, tile, counts?[i] ?? 1).DetachFromDisposeScope(), size);
                tile += counts?[i] ?? 1;
            }
        }
    }

    private static int[] ImagesPerSample(SafetensorsReader inputs, LlavaConfig config, List<long[]> rows, List<ImageTiles> images)
    {
        if (inputs.Entries.ContainsKey("images_per_sample")) return [.. inputs.Load("images_per_sample").data<long>().Select(n => (int)n)];
        if (config.ImageTokenId is not { } id) return new int[rows.Count];
        // The image id stands once per feature: give each row as many images as fill its places.
        var features = new Queue<int>(images.Select(i => AnyResolution.FeatureRows(config, i.Size, i.TileCount, config.ImageAspectRatio == "anyres").Count));
        return [.. rows.Select(row =>
        {
            int places = row.Count(t => t == id), count = 0;
            while (places > 0 && features.Count > 0)
            {
                places -= features.Dequeue();
                count++;
            }
            return count;
        })];
    }
}
