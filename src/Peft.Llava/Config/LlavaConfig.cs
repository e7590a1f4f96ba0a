using System.Text.Json.Nodes;
using TorchSharp;

namespace Peft.Llava;

/// <summary>
/// A model's configuration: the typed view of one <c>config.json</c>, in any <see cref="CheckpointLayout"/>. The document itself is kept
/// (fields this library does not know included), and a change goes through <see cref="With"/>, so that document and view cannot drift.
/// </summary>
public sealed record LlavaConfig
{
    internal LlavaConfig(JsonObject document, string source) => (Document, Source) = (document, source);

    /// <summary>The file the configuration came from, for messages.</summary>
    public string Source { get; internal init; }

    /// <summary>The folder that the configuration came from; null if there is none, or it is no longer there.</summary>
    internal string? Folder => Path.GetDirectoryName(Source) is { Length: > 0 } folder && Directory.Exists(folder) ? folder : null;

    /// <summary>Whether names and files are those of transformers' own LLaVA classes.</summary>
    internal bool IsHuggingFace => Layout is CheckpointLayout.HuggingFace or CheckpointLayout.HuggingFaceNext;

    /// <summary>The layout.</summary>
    public CheckpointLayout Layout { get; internal init; }

    /// <summary>The decoder.</summary>
    public LanguageConfig Language { get; internal init; } = null!;

    /// <summary>
    /// The vision tower. Null for a plain language model, and in the original layout until the tower's own folder has been read.
    /// </summary>
    public VisionConfig? Vision { get; internal init; }

    /// <summary>Whether the model has a vision side at all.</summary>
    public bool HasVision { get; internal init; }

    /// <summary><c>mm_vision_tower</c>: the tower's folder or hub name (original layout), or null.</summary>
    public string? VisionTowerName { get; internal init; }

    /// <summary><c>mm_projector_type</c>.</summary>
    public ProjectorType Projector { get; internal init; } = ProjectorType.Identity;

    /// <summary>Width of the features that the projector reads.</summary>
    public int ProjectorInputSize { get; internal init; }

    /// <summary>Whether the projector's linear layers have a bias (always so in the original layout).</summary>
    public bool ProjectorBias { get; internal init; } = true;

    /// <summary>Which hidden state of the tower is used.</summary>
    public FeatureLayer FeatureLayer { get; internal init; } = new(-2);

    /// <summary>Whether the class token stays among the features (<c>cls_patch</c>, <c>full</c>).</summary>
    public bool KeepClassToken { get; internal init; }

    /// <summary>How the tiles of one image become a row of features.</summary>
    public PatchMergeType PatchMerge { get; internal init; }

    /// <summary><c>image_aspect_ratio</c>: <c>square</c>, <c>pad</c>, <c>anyres</c>, ….</summary>
    public string ImageAspectRatio { get; internal init; } = "square";

    /// <summary>The sizes an any-resolution image may be brought to, always width first, whatever the file's order is.</summary>
    public IReadOnlyList<ImageSize> GridPinpoints { get; internal init; } = [];

    /// <summary>The id that stands for one image feature in the llava-hf layouts; null in the original one, which uses -200 per image.</summary>
    public int? ImageTokenId { get; internal init; }

    /// <summary><c>tokenizer_padding_side</c>.</summary>
    public PaddingSide PaddingSide { get; internal init; }

    /// <summary><c>tokenizer_model_max_length</c>: merged sequences are cut to it; null for no limit.</summary>
    public int? MaxLength { get; internal init; }

    /// <summary><c>unfreeze_mm_vision_tower</c>: the checkpoint's own tower weights count.</summary>
    public bool UnfreezeVisionTower { get; internal init; }

    /// <summary><c>tune_mm_mlp_adapter</c>.</summary>
    public bool TuneProjectorOnly { get; internal init; }

    /// <summary><c>mm_use_im_start_end</c>.</summary>
    public bool UseImageStartEnd { get; internal init; }

    /// <summary><c>mm_use_im_patch_token</c>.</summary>
    public bool UseImagePatchToken { get; internal init; }

    /// <summary><c>torch_dtype</c> (<c>dtype</c>), or null where the file does not say.</summary>
    public torch.ScalarType? StoredDtype { get; internal init; }

    /// <summary>Whether an <c>image_newline</c> parameter belongs to the model.</summary>
    public bool HasImageNewline => HasVision && PatchMerge == PatchMergeType.SpatialUnpad;

    /// <summary>Features that one tile gives: patches, and the class token where it is kept.</summary>
    /// <exception cref="InvalidOperationException">The vision configuration is not known yet.</exception>
    public int FeaturesPerTile => (Vision ?? throw new InvalidOperationException("The vision tower's configuration has not been read."))
        .PatchCount + (KeepClassToken ? 1 : 0);

    /// <summary>The whole document; a copy, free to change.</summary>
    public JsonObject ToJson() => (JsonObject)Document.DeepClone();

    /// <summary>The same configuration with one field of the document changed.</summary>
    /// <param name="name">The field, by its name in the file.</param>
    /// <param name="value">The new value; null writes a JSON null.</param>
    /// <returns>A new configuration; this one is unchanged.</returns>
    /// <exception cref="InvalidConfigurationException">The changed document cannot be used.</exception>
    public LlavaConfig With(string name, JsonNode? value)
    {
        var document = ToJson();
        document[name] = value?.DeepClone();
        var changed = Parse(document, Source);
        return changed.Vision is null ? changed with { Vision = Vision } : changed;
    }

    /// <summary>The same configuration with one field of the language model's part of the document changed (<c>text_config</c>, llava-hf layouts).</summary>
    internal LlavaConfig WithText(string name, JsonNode? value)
    {
        var text = (JsonObject)(Document["text_config"]?.DeepClone() ?? new JsonObject());
        text[name] = value?.DeepClone();
        return With("text_config", text);
    }

    /// <summary>The same configuration with the vision tower's sizes known.</summary>
    /// <param name="vision">The tower's sizes.</param>
    /// <returns>A new configuration.</returns>
    public LlavaConfig WithVision(VisionConfig vision) => this with { Vision = vision };

    /// <summary>Reads <c>config.json</c> of a folder.</summary>
    /// <param name="folder">A checkpoint folder, or the file itself.</param>
    /// <returns>The configuration.</returns>
    /// <exception cref="InvalidConfigurationException">The file is missing, is no JSON object, or holds values that cannot be used.</exception>
    /// <exception cref="CheckpointException">There is no such folder.</exception>
    public static LlavaConfig Load(string folder) => LlavaConfigJson.Load(folder);

    /// <summary>Reads a configuration document.</summary>
    /// <param name="document">The document; copied.</param>
    /// <param name="source">What messages call it.</param>
    /// <returns>The configuration.</returns>
    /// <exception cref="InvalidConfigurationException">The document holds values that cannot be used.</exception>
    public static LlavaConfig Parse(JsonObject document, string source = "config.json")
        => LlavaConfigJson.Parse((JsonObject)document.DeepClone(), source);

    internal JsonObject Document { get; }
}
