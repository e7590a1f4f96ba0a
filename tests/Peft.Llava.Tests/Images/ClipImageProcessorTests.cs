using System.Runtime.InteropServices;
using System.Text.Json;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Images;

public sealed class ClipImageProcessorTests
{
    public static IEnumerable<TheoryDataRow<string>> Clips => Goldens.Rows("images", c => c.Kind == "clip");

    public static IEnumerable<TheoryDataRow<string>> Processes => Goldens.Rows("images", c => c.Kind == "process");

    public static IEnumerable<TheoryDataRow<string>> Batches => Goldens.Rows("images", c => c.Kind == "batch");

    [Theory, MemberData(nameof(Clips)), Trait(Goldens.Trait, "images")]
    public void Clip_processing_is_byte_equal(string folder)
    {
        var golden = new GoldenCase(folder);
        var image = ImageGoldens.Input(golden);
        foreach (var output in golden.Json.GetProperty("outputs").EnumerateArray())
        {
            string name = output.GetProperty("tensor").GetString()!;
            int edge = output.GetProperty("shortest_edge").GetInt32(), crop = output.GetProperty("crop").GetInt32();
            int step = output.GetProperty("rows").GetString() == "all" ? 1 : 37;
            var config = Config(golden.Json, edge, crop);
            var current = new ClipImageProcessor(config);
            AssertCrop(golden, name, output.GetProperty("correct_sha256"), current.Tiles(image).Single(), step);
            var older = new ClipImageProcessor(config, order: PassOrder.HorizontalFirst);
            string olderName = output.GetProperty("older_equals").GetBoolean() ? name : "older_" + name;
            AssertCrop(golden, olderName, output.GetProperty("older_sha256"), older.Tiles(image).Single(), step);
            AssertFloats(golden, $"pixel_values_{edge}_{crop}", current, image);
        }
    }

    /// <summary>
    /// The bytes of a crop, of all rows or of a selection. Where the recorded crop lacks its first row or column (the case's note), what
    /// is there is compared, and the whole with what transformers 5 gives.
    /// </summary>
    private static void AssertCrop(GoldenCase golden, string name, JsonElement sha, RgbImage got, int step)
    {
        var (bytes, shape) = ImageGoldens.Bytes(golden, name);
        if (shape[1] < got.Width || (step == 1 && shape[0] < got.Height))
        {
            int left = got.Width - (int)shape[1], top = step == 1 ? got.Height - (int)shape[0] : 0;
            for (int y = 0; y < shape[0]; y++)
                ImageGoldens.AssertBytes(bytes.AsSpan((int)(3 * shape[1] * y), (int)(3 * shape[1])), got.Row(top + y * step)[(3 * left)..], $"{name}, row {y}");
            if (Has(golden, "new_" + name)) ImageGoldens.AssertBytes(ImageGoldens.Bytes(golden, "new_" + name).Bytes, got.Pixels, "new_" + name);
            return;
        }
        ImageGoldens.AssertBytes(bytes, ImageGoldens.EveryRow(got, step), name);
        Assert.Equal(sha.GetString(), ImageGoldens.Sha(got.Pixels));
    }

    [Theory, MemberData(nameof(Processes)), Trait(Goldens.Trait, "images")]
    public void Llava_processing_is_byte_equal(string folder)
    {
        var golden = new GoldenCase(folder);
        var image = ImageGoldens.Input(golden);
        var json = golden.Json;
        if (json.GetProperty("peer_error").ValueKind != JsonValueKind.Null)
        {
            Assert.Equal("image_grid_pinpoints '(1x1),...,(2x2)' cannot be used: it has '1x1' where a number was expected (at character 4). Write every resolution out, width first, for "
                + "example [[336, 672], [672, 336], [672, 672]], in the checkpoint's config.json or in the options.", Assert.ThrowsAny<Peft.Core.PeftException>(() => Processor(json, PassOrder.Current).Tiles(image)).Message);
            return;
        }
        var current = Processor(json, PassOrder.Current);
        var tiles = current.Tiles(image);
        int step = json.GetProperty("rows").GetString() == "all" ? 1 : 37;
        Assert.Equal(json.GetProperty("shape")[0].GetInt32(), tiles.Count);
        AssertTiles(golden, "images", json.GetProperty("images_sha256"), tiles, step);
        string olderName = json.GetProperty("older_equals").GetBoolean() ? "images" : "older_images";
        AssertTiles(golden, olderName, json.GetProperty("older_images_sha256"), Processor(json, PassOrder.HorizontalFirst).Tiles(image), step);
        AssertFloats(golden, "pixel_values", current, image);
        if (json.TryGetProperty("best_resolution", out var best))
        {
            var pinpoints = Pinpoints(json.GetProperty("image_grid_pinpoints"));
            var size = AnyResolutionGrid.SelectBestResolution(image.Size, pinpoints);
            var fit = AnyResolutionGrid.ResizeAndPad(image.Size, size);
            var (columns, rows) = AnyResolutionGrid.GridShape(image.Size, pinpoints, current.TileSize);
            Assert.Equal(ImageGoldens.Numbers(best), new double[] { size.Width, size.Height });
            Assert.Equal(ImageGoldens.Numbers(json.GetProperty("resized")), new double[] { fit.Picture.Width, fit.Picture.Height });
            Assert.Equal(ImageGoldens.Numbers(json.GetProperty("paste")), new double[] { fit.X, fit.Y });
            Assert.Equal(ImageGoldens.Numbers(json.GetProperty("grid_shape")), new double[] { columns, rows });
            Assert.Equal(json.GetProperty("patches").GetInt32(), tiles.Count);
        }
    }

    private static void AssertTiles(GoldenCase golden, string name, JsonElement sha, IReadOnlyList<RgbImage> tiles, int step)
    {
        ImageGoldens.AssertBytes(ImageGoldens.Bytes(golden, name).Bytes, [.. tiles.SelectMany(t => ImageGoldens.EveryRow(t, step))], name);
        Assert.Equal(sha.GetString(), ImageGoldens.Sha([.. tiles.SelectMany(t => t.Pixels)]));
    }

    [Theory, MemberData(nameof(Batches)), Trait(Goldens.Trait, "images")]
    public void Pictures_are_stacked_only_if_their_shapes_agree(string folder)
    {
        var golden = new GoldenCase(folder);
        int edge = golden.Json.GetProperty("edge").GetInt32();
        var images = golden.Json.GetProperty("pictures").EnumerateArray()
            .Select(p => ImageGoldens.Picture(new GoldenCase(Path.Combine(golden.AreaFolder, p.GetString()!)), "expected", "rgb")).ToList();
        foreach (var result in golden.Json.GetProperty("results").EnumerateArray())
        {
            var aspect = AspectPolicies.Parse(result.GetProperty("image_aspect_ratio").GetString());
            var processor = new ClipImageProcessor(ImageProcessorConfig.Clip(edge), aspect, Pinpoints(golden.Json.GetProperty("pinpoints")));
            using var got = processor.ToTensors(images);
            bool one = result.GetProperty("type").GetString() == "one tensor";
            Assert.Equal(one, got.Stacked is not null);
            Assert.Equal(!one, got.Separate is not null);
            string expected = JsonSerializer.Serialize(result.GetProperty("shapes"));
            Assert.Equal(expected, one ? JsonSerializer.Serialize(got.Stacked!.shape) : JsonSerializer.Serialize(got.Separate!.Select(t => t.shape)));
        }
    }

    [Fact]
    public void Tensors_belong_to_the_caller_and_do_not_leak()
    {
        var image = PilResizeTests.Noise(new Random(5), 31, 22);
        var wide = PilResizeTests.Noise(new Random(6), 70, 9);
        var processor = new ClipImageProcessor(ImageProcessorConfig.Clip(20), AspectPolicy.AnyResolution, [new(40, 20), new(60, 20)]);
        LeakGuard.AssertFlat(4, () =>
        {
            using var one = processor.ToTensor(image);
            using var many = processor.ToTensors([image, wide]);
            using var same = processor.ToTensors([image, image]);
            Assert.Equal([3L, 3, 20, 20], one.shape);
            Assert.Equal([2L, 3, 3, 20, 20], same.Stacked!.shape);
            using var scope = NewDisposeScope();
            TensorAssert.Equal(one, many.Separate![0], "the same picture alone and in a list");
        });
    }

    /// <summary>Padding is never made when the resize can take it where it would lie; the result must not show that.</summary>
    [Fact]
    public void Padding_on_the_way_equals_a_padded_picture()
    {
        var random = new Random(17);
        for (int round = 0; round < 200; round++)
        {
            var image = PilResizeTests.Noise(random, random.Next(1, 60), random.Next(1, 60));
            int edge = random.Next(1, 40);
            var config = ImageProcessorConfig.Clip(edge) with { CropSize = random.Next(1, 40), Resample = (ResizeFilter)random.Next(6), Mean = [0.9, 0.3, 0.05] };
            if (round % 4 == 0) config = config with { ShortestEdge = null, FixedSize = new ImageSize(edge, random.Next(1, 40)) };
            var order = (PassOrder)random.Next(2);
            var place = AnyResolutionGrid.ExpandToSquare(image.Size);
            var padded = new RgbImage(place.Canvas.Width, place.Canvas.Height);
            for (int i = 0; i < padded.Pixels.Length; i++) padded.Pixels[i] = (byte)(config.Mean[i % 3] * 255);
            for (int y = 0; y < image.Height; y++) image.Row(y).CopyTo(padded.Row(place.Y + y)[(3 * place.X)..]);
            var expected = new ClipImageProcessor(config, AspectPolicy.Square, order: order).Tiles(padded).Single();
            var got = new ClipImageProcessor(config, AspectPolicy.Pad, order: order).Tiles(image).Single();
            ImageGoldens.AssertBytes(expected.Pixels, got.Pixels, $"round {round}, {image.Size}, {config}");
        }
    }

    [Fact]
    public void A_wrong_buffer_or_policy_is_refused()
    {
        var processor = new ClipImageProcessor(ImageProcessorConfig.Clip(20));
        var buffer = Assert.Throws<ArgumentException>(() => processor.Process(new RgbImage(3, 5), new float[7]));
        Assert.Contains("1 tile(s) of 3x20x20 are 1200 values, not 7.", buffer.Message, StringComparison.Ordinal);
        var planes = Assert.Throws<ArgumentException>(() => processor.Normalizer.Apply(new byte[6], new float[5]));
        Assert.Contains("6 bytes of RGB need three planes of 2 values, not 5 values.", planes.Message, StringComparison.Ordinal);
        var none = Assert.Throws<ImageProcessorConfigException>(
            () => new ClipImageProcessor(ImageProcessorConfig.Clip(20) with { ShortestEdge = null, FixedSize = new(20, 30) }, AspectPolicy.AnyResolution));
        Assert.Equal(
            ["The any-resolution policy needs image_grid_pinpoints, and there are none.", "The any-resolution policy needs size.shortest_edge."],
            none.Problems);
        Assert.Equal("The options: the image processor's settings cannot be used.\n  The any-resolution policy needs image_grid_pinpoints, and there are none.\n"
            + "  The any-resolution policy needs size.shortest_edge.\nUse the preprocessor_config.json of the checkpoint's own CLIP vision tower.", none.Message);
        var thin = Assert.Throws<ImageShapeException>(
            () => new ClipImageProcessor(ImageProcessorConfig.Clip(20) with { DoResize = false }, AspectPolicy.Pad).Tiles(new RgbImage(1, 60_000)));
        Assert.Contains("an intermediate picture of 60000x60000, which is too large", thin.Message, StringComparison.Ordinal);
    }

    private static ClipImageProcessor Processor(JsonElement json, PassOrder order)
    {
        var pinpoints = json.GetProperty("image_grid_pinpoints");
        return new ClipImageProcessor(
            Config(json, json.GetProperty("shortest_edge").GetInt32(), json.GetProperty("crop").GetInt32()),
            AspectPolicies.Parse(json.GetProperty("image_aspect_ratio").GetString()),
            pinpoints.ValueKind == JsonValueKind.Null ? null : Pinpoints(pinpoints), order);
    }

    private static IReadOnlyList<ImageSize> Pinpoints(JsonElement json) => json.ValueKind == JsonValueKind.String
        ? GridPinpoints.Parse(json.GetString()!)
        : [.. json.EnumerateArray().Select(p => new ImageSize(p[0].GetInt32(), p[1].GetInt32()))];

    private static ImageProcessorConfig Config(JsonElement json, int edge, int crop) => ImageProcessorConfig.Clip(edge) with
    {
        CropSize = crop,
        Mean = ImageGoldens.Numbers(json.GetProperty("mean")),
        Std = ImageGoldens.Numbers(json.GetProperty("std")),
    };

    private static bool Has(GoldenCase golden, string tensor)
    {
        using var reader = golden.Tensors(golden.Json.GetProperty("expected").GetString()!);
        return reader.Entries.ContainsKey(tensor);
    }

    private static void AssertFloats(GoldenCase golden, string tensor, ClipImageProcessor processor, RgbImage image)
    {
        if (!Has(golden, tensor)) return;
        using var scope = NewDisposeScope();
        using var reader = golden.Tensors(golden.Json.GetProperty("expected").GetString()!);
        var expected = reader.Load(tensor);
        long height = expected.shape[^2], width = expected.shape[^1], side = processor.TileSize;
        var got = processor.ToTensor(image).narrow(2, side - height, height).narrow(3, side - width, width).contiguous();
        Assert.True(MemoryMarshal.Cast<byte, int>(expected.bytes).SequenceEqual(MemoryMarshal.Cast<byte, int>(got.bytes)), $"{tensor}: the bits differ.");
    }
}
