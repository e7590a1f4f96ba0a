using Peft.Testing;
using Xunit;

namespace Peft.Llava.Tests.Data;

public sealed class LlavaProcessorTests : IDisposable
{
    private static readonly string Common = Path.Combine(Repository.Root, "tests", "goldens", "training", "common");
    private readonly string _folder = Directory.CreateTempSubdirectory("processor").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void A_checkpoints_processor_is_read_and_written()
    {
        var options = new LlavaProcessorOptions { VisionFolder = Path.Combine(Common, "clip-tower"), Template = Templates.ByName("plain") };
        var processor = LlavaProcessor.FromFolder(Path.Combine(Common, "base-llava"), options);
        Assert.Equal("plain", processor.Template.Name);
        var clip = Assert.IsType<ClipImageProcessor>(processor.Images);
        processor.Save(_folder);
        File.Copy(Path.Combine(Common, "base-llava", "config.json"), Path.Combine(_folder, "config.json"));
        var again = LlavaProcessor.FromFolder(_folder, new LlavaProcessorOptions { Aspect = AspectPolicy.Square });
        Assert.Equal("vicuna_v1", again.Template.Name);
        Assert.Equal(processor.Tokenizer.Encode("What is this?"), again.Tokenizer.Encode("What is this?"));
        var clipAgain = Assert.IsType<ClipImageProcessor>(again.Images);
        Assert.Equal((clip.TileSize, AspectPolicy.Square), (clipAgain.TileSize, clipAgain.Aspect));
        Assert.Equal("v1", again.WithTemplate(Templates.ByName("v1")).Template.Name);
    }

    [Fact]
    public void A_text_model_has_no_image_side()
        => Assert.Null(LlavaProcessor.FromFolder(Path.Combine(Common, "base-llama")).Images);

    [Fact]
    public void Missing_image_settings_are_named_with_the_places()
    {
        File.Copy(Path.Combine(Common, "base-llava", "config.json"), Path.Combine(_folder, "config.json"));
        File.Copy(Path.Combine(Common, "base-llava", "tokenizer.model"), Path.Combine(_folder, "tokenizer.model"));
        var e = Assert.Throws<ImageProcessorConfigException>(() => LlavaProcessor.FromFolder(_folder));
        Assert.Contains($"No image settings are there; looked for {Path.Combine(_folder, "preprocessor_config.json")}", e.Message);
        Assert.Contains("Copy the vision tower's preprocessor_config.json into the checkpoint.", e.Message);
    }
}
