using System.Text.Json;
using Peft.Core;

namespace Peft.Llava;

/// <summary>What a caller decides when loading a processor; null leaves it to the checkpoint.</summary>
public sealed record LlavaProcessorOptions
{
    /// <summary>How conversations are written; null for LLaVA's default, <c>vicuna_v1</c>.</summary>
    public ConversationTemplate? Template { get; init; }

    /// <summary>The tokenizer's choices.</summary>
    public TokenizerOptions? Tokenizer { get; init; }

    /// <summary>The vision tower's folder, for its <c>preprocessor_config.json</c>, where the checkpoint has none of its own.</summary>
    public string? VisionFolder { get; init; }

    /// <summary>What is done to pictures that are not square; null for the checkpoint's <c>image_aspect_ratio</c>.</summary>
    public AspectPolicy? Aspect { get; init; }
}

/// <summary>
/// What turns pictures and texts into a model's input: tokenizer, image processor and conversation template. It holds no state that a call
/// changes; threads may share one.
/// </summary>
public sealed class LlavaProcessor
{
    private const string ImageConfigFile = "preprocessor_config.json";
    private readonly Func<string, RgbImage> _readImage;
    private readonly LlavaConfig? _config;

    /// <summary>Puts a processor together.</summary>
    /// <param name="tokenizer">The tokenizer.</param>
    /// <param name="images">The image side; null for text alone.</param>
    /// <param name="template">How conversations are written; null for LLaVA's default, <c>vicuna_v1</c>.</param>
    /// <param name="readImage">Decodes an image file; null for <see cref="ImageDecoder"/>.</param>
    public LlavaProcessor(
        LlamaTokenizer tokenizer, IImageProcessor? images = null, ConversationTemplate? template = null, Func<string, RgbImage>? readImage = null)
    {
        ArgumentNullException.ThrowIfNull(tokenizer);
        Tokenizer = tokenizer;
        Images = images;
        Template = template ?? Templates.Default;
        _readImage = readImage ?? ImageDecoder.Decode;
    }

    private LlavaProcessor(LlavaProcessor other, LlamaTokenizer tokenizer, ConversationTemplate template)
        : this(tokenizer, other.Images, template, other._readImage)
        => _config = other._config;

    private LlavaProcessor(LlamaTokenizer tokenizer, IImageProcessor? images, ConversationTemplate? template, LlavaConfig config)
        : this(tokenizer, images, template)
        => _config = config;

    /// <summary>
    /// Reads a checkpoint's processor: its tokenizer, its configuration's aspect policy, and the image settings from
    /// <c>preprocessor_config.json</c> or <c>processor_config.json</c> of the checkpoint, or of its vision tower's folder.
    /// </summary>
    /// <param name="folder">The checkpoint.</param>
    /// <param name="options">What to decide otherwise; null for nothing.</param>
    /// <exception cref="TokenizerFileException">The tokenizer cannot be read.</exception>
    /// <exception cref="ImageProcessorConfigException">The model has a vision tower, but no image settings are there, or unusable ones.</exception>
    public static LlavaProcessor FromFolder(string folder, LlavaProcessorOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(folder);
        options ??= new LlavaProcessorOptions();
        var config = LlavaConfig.Load(folder);
        var tokenizer = LlamaTokenizer.FromFolder(folder, options.Tokenizer);
        var images = config.HasVision ? LoadImages(folder, config, options) : null;
        return new LlavaProcessor(tokenizer, images, options.Template, config);
    }

    /// <summary>The tokenizer.</summary>
    public LlamaTokenizer Tokenizer { get; }

    /// <summary>The image side, or null.</summary>
    public IImageProcessor? Images { get; }

    /// <summary>How conversations are written.</summary>
    public ConversationTemplate Template { get; }

    /// <summary>Whether the model was trained with start and end ids around pictures.</summary>
    internal bool UsesImageStartEnd => _config?.UseImageStartEnd == true;

    /// <summary>A model's processor over a tokenizer and image settings that are read already.</summary>
    internal static LlavaProcessor Of(LlavaConfig config, LlamaTokenizer tokenizer, IImageProcessor? images) => new(tokenizer, images, null, config);

    /// <summary>Decodes an image file.</summary>
    /// <param name="path">The file.</param>
    /// <exception cref="PeftException">The file holds no picture that can be decoded (<see cref="ImageDecodeException"/>).</exception>
    public RgbImage ReadImage(string path) => _readImage(path);

    /// <summary>The same with another template.</summary>
    /// <param name="template">The template.</param>
    public LlavaProcessor WithTemplate(ConversationTemplate template) => new(this, Tokenizer, template);

    /// <summary>The same with another tokenizer.</summary>
    /// <param name="tokenizer">The tokenizer.</param>
    public LlavaProcessor WithTokenizer(LlamaTokenizer tokenizer) => new(this, tokenizer, Template);

    /// <summary>
    /// Writes tokenizer and image settings as a checkpoint holds them; for a model in a llava-hf layout also what transformers' processor has to know of it
    /// (<c>processor_config.json</c>), and its chat template.
    /// </summary>
    /// <param name="folder">The folder; made if it is missing.</param>
    /// <param name="model">The model's configuration; null for that of the folder that the processor was read from.</param>
    /// <exception cref="TokenizerFileException">The tokenizer cannot be written; see <see cref="LlamaTokenizer.Save"/>.</exception>
    public void Save(string folder, LlavaConfig? model = null)
    {
        Tokenizer.Save(folder);
        if ((model ?? _config) is { IsHuggingFace: true } config)
        {
            Tokenizer.WriteFastFile(folder);
            CompanionFiles.Write(config, config.Folder, folder, CompanionFiles.OfProcessor);
        }
        bool copied = model is null && _config is { IsHuggingFace: true } && _config.Folder is { } source && File.Exists(Path.Combine(source, ImageConfigFile));
        if (!copied && Images is ClipImageProcessor clip) AtomicFile.WriteText(Path.Combine(folder, ImageConfigFile), PythonJson.Write(clip.Config.ToJson()) + "\n");
    }

    private static ClipImageProcessor LoadImages(string folder, LlavaConfig config, LlavaProcessorOptions options)
    {
        string[] towers = config.VisionTowerName is { } name ? VisionTowerFiles.Places([folder], name) : [];
        string[] places = [.. new[] { folder, options.VisionFolder }.Concat(towers).OfType<string>().Distinct()
            .SelectMany(f => new[] { Path.Combine(f, ImageConfigFile), Path.Combine(f, "processor_config.json") })];
        string path = places.FirstOrDefault(File.Exists) ?? throw new ImageProcessorConfigException(folder,
            [$"No image settings are there; looked for {string.Join(", ", places)}. Copy the vision tower's preprocessor_config.json into the checkpoint."]);
        return new ClipImageProcessor(
            ImageProcessorConfig.Load(path), options.Aspect ?? AspectPolicies.Parse(config.ImageAspectRatio), config.GridPinpoints);
    }
}
