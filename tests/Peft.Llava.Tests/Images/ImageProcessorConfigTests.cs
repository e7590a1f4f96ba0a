using System.Text.Json;
using Peft.Testing;
using Xunit;

namespace Peft.Llava.Tests.Images;

public sealed class ImageProcessorConfigTests
{
    private static ImageProcessorConfig Read(string json)
    {
        using var document = JsonDocument.Parse(json);
        return ImageProcessorConfig.FromJson(document.RootElement, "settings.json");
    }

    [Fact]
    public void All_fields_are_read()
    {
        var config = Read("""
            {"image_processor_type": "CLIPImageProcessor", "do_resize": true, "size": {"shortest_edge": 42}, "resample": 2,
             "do_center_crop": true, "crop_size": {"height": 35, "width": 35}, "do_rescale": true, "rescale_factor": 0.0078125,
             "do_normalize": false, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "do_convert_rgb": true, "unknown": 3}
            """);
        Assert.Equal((42, null, ResizeFilter.Bilinear, 35, 0.0078125, false),
            (config.ShortestEdge, config.FixedSize, config.Resample, config.CropSize, config.RescaleFactor, config.DoNormalize));
        Assert.Equal([0.1, 0.2, 0.3], config.Mean);
        Assert.Equal([0.4, 0.5, 0.6], config.Std);
    }

    [Fact]
    public void Older_and_newer_forms_are_read()
    {
        var older = Read("""{"feature_extractor_type": "CLIPFeatureExtractor", "size": 336, "crop_size": 224}""");
        Assert.Equal((336, 224), (older.ShortestEdge, older.CropSize));
        var newer = Read("""{"image_processor": {"size": {"height": 30, "width": 40}, "crop_size": {"height": 28, "width": 28}, "do_rescale": false}}""");
        Assert.Equal((null, new ImageSize(40, 30), 28, null), (newer.ShortestEdge, newer.FixedSize, newer.CropSize, newer.RescaleFactor));
        Assert.Equal(28, new ClipImageProcessor(newer).Tiles(new RgbImage(5, 9)).Single().Width);
    }

    [Fact]
    public void Json_goes_both_ways()
    {
        string text = ImageProcessorConfig.Clip(42).ToJson().ToJsonString(new JsonSerializerOptions { WriteIndented = true, NewLine = "\n" });
        foreach (string file in Directory.EnumerateFiles(Path.Combine(Goldens.Roots[0], "model"), "preprocessor_config.json", SearchOption.AllDirectories))
        {
            var config = ImageProcessorConfig.Load(file);
            string written = config.ToJson().ToJsonString(new JsonSerializerOptions { WriteIndented = true, NewLine = "\n" });
            Assert.Equal(File.ReadAllText(file).TrimEnd(), written);
        }
        Assert.Contains("\"shortest_edge\": 42", text, StringComparison.Ordinal);
    }

    [Fact]
    public void All_faults_are_told_at_once()
    {
        var error = Assert.Throws<ImageProcessorConfigException>(() => Read("""
            {"image_processor_type": "SiglipImageProcessor", "do_center_crop": false, "do_resize": 1, "size": {"longest_edge": 5},
             "resample": 7, "crop_size": {"height": 0, "width": 3}, "rescale_factor": "x", "image_mean": [1, 2], "image_std": [1, 0, 2]}
            """));
        Assert.Equal(
            [
                "image_processor_type is SiglipImageProcessor; only CLIP's way of processing is supported (CLIPImageProcessor and LLaVA's variants of it).",
                "do_center_crop is false; the vision tower needs pictures of one size.",
                "do_resize is 1; true or false was expected.",
                "crop_size is 3x0; only squares are supported.",
                "rescale_factor is \"x\"; a number was expected.",
                "crop_size must be at least 1, got 0.",
                "size must be either a shortest_edge or a height and a width.",
                "resample must be 0 to 5 (Pillow's numbers), got 7.",
                "image_mean must be three numbers, got [1, 2].",
                "image_std must be three numbers above 0, got [1, 0, 2].",
            ],
            error.Problems);
        Assert.StartsWith("settings.json: the image processor's settings cannot be used.\n  image_processor_type is Siglip", error.Message, StringComparison.Ordinal);
        Assert.EndsWith("Use the preprocessor_config.json of the checkpoint's own CLIP vision tower.", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("[1]", "It is array where an object was expected.")]
    [InlineData("""{"crop_size": "big"}""", "crop_size is \"big\"; a number, or a height and a width, was expected.")]
    [InlineData("""{"size": 2.5}""", "size is 2.5; a whole number was expected.")]
    [InlineData("""{"size": {"shortest_edge": 0}}""", "size.shortest_edge must be at least 1, got 0.")]
    [InlineData("""{"size": {"height": 3, "width": 0}}""", "size must be at least 1x1, got 0x3.")]
    [InlineData("""{"image_std": 3}""", "image_std is 3; three numbers were expected.")]
    public void A_fault_is_told(string json, string problem)
        => Assert.Contains(problem, Assert.Throws<ImageProcessorConfigException>(() => Read(json)).Problems);

    [Fact]
    public void A_file_that_is_no_json_is_refused()
    {
        string path = Path.GetTempFileName();
        try
        {
            File.WriteAllText(path, "{");
            var error = Assert.Throws<ImageProcessorConfigException>(() => ImageProcessorConfig.Load(path));
            Assert.StartsWith($"{path}: the image processor's settings cannot be used.\n  It is no JSON:", error.Message, StringComparison.Ordinal);
        }
        finally
        {
            File.Delete(path);
        }
    }

    [Theory]
    [InlineData("pad", AspectPolicy.Pad, "pad")]
    [InlineData("anyres", AspectPolicy.AnyResolution, "anyres")]
    [InlineData("square", AspectPolicy.Square, "square")]
    [InlineData(null, AspectPolicy.Square, "square")]
    [InlineData("something", AspectPolicy.Square, "square")]
    public void Aspect_words(string? word, AspectPolicy expected, string back)
    {
        Assert.Equal(expected, AspectPolicies.Parse(word));
        Assert.Equal(back, expected.ToWord());
    }

    [Fact]
    public void Aspect_words_of_later_versions_are_refused()
    {
        var error = Assert.Throws<ImageProcessorConfigException>(() => AspectPolicies.Parse("anyres_max_9"));
        Assert.Equal(["'anyres_max_9' is not supported; pad, anyres and square are."], error.Problems);
    }
}
