using System.Text.Json.Nodes;
using Peft.Core;
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

    [Fact, Trait("Fault", "files-3")]
    public void Transformers_processor_settings_go_along_and_are_made_where_there_are_none()
    {
        string recorded = Path.Combine(Repository.Root, "tests", "goldens", "export", "gqa-hf5", "expected");
        var processor = LlavaProcessor.FromFolder(recorded).WithTemplate(Templates.ByName("plain"));
        processor.Save(_folder);
        foreach (string name in new[] { "processor_config.json", "chat_template.jinja" })
            Assert.Equal(File.ReadAllBytes(Path.Combine(recorded, name)), File.ReadAllBytes(Path.Combine(_folder, name)));

        // From nothing: the model says what its processor has to know.
        string bare = Path.Combine(_folder, "bare");
        var model = LlavaConfig.Parse(LlavaConfig.Load(recorded).ToJson());
        new LlavaProcessor(processor.Tokenizer, new ClipImageProcessor(ImageProcessorConfig.Clip(28), AspectPolicy.Square)).Save(bare, model);
        var expected = JsonNode.Parse(File.ReadAllBytes(Path.Combine(recorded, "processor_config.json")))!.AsObject();
        var pictures = expected["image_processor"]!;
        expected.Remove("image_processor");
        Assert.Equal(PythonJson.Write(expected) + "\n", File.ReadAllText(Path.Combine(bare, "processor_config.json")));
        Assert.Equal(PythonJson.Write(pictures) + "\n", File.ReadAllText(Path.Combine(bare, "preprocessor_config.json")));
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
