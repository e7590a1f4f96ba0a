using System.Text.Json;
using Peft.Core;

namespace Peft.Llava;

/// <summary>
/// A LLaVA ready for use, from whatever a training leaves: the one loader with what LLaVA's <c>load_pretrained_model</c> takes. What a folder is is told by its
/// files, never by its name.
/// </summary>
/// <remarks>Source: LLaVA <c>llava/model/builder.py</c>.</remarks>
public sealed class PretrainedLlava : IDisposable
{
    private const string Stage1 = "mm_projector.bin";
    private static readonly string[] Weights = ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"];
    private static readonly string[] TokenizerFiles = ["tokenizer.model", "tokenizer.json"];

    private PretrainedLlava(LlavaModel model, PeftModel? peft, LlavaProcessor processor)
    {
        Model = model;
        Peft = peft;
        Processor = processor;
        ContextLength = LengthLimit.Of(null, model.Config, processor.Tokenizer);
    }

    /// <summary>The model, frozen and in evaluation mode; with the adapter on it, where the folder holds one.</summary>
    public LlavaModel Model { get; }

    /// <summary>
    /// The adapter, active and not merged, or null. LLaVA merges it; <see cref="PeftModel.MergeAndUnload"/> does that, and what is not merged can be switched.
    /// </summary>
    public PeftModel? Peft { get; }

    /// <summary>Tokenizer, with the tokens that were added for the training, and image settings.</summary>
    public LlavaProcessor Processor { get; }

    /// <summary>The longest sequence that the model was made for, image features included.</summary>
    public int ContextLength { get; }

    /// <summary>
    /// Loads one of: a whole model; a LoRA run's folder on its base, a LLaVA or the language model it began with; a stage-1 folder (<c>mm_projector.bin</c>) on its
    /// language model.
    /// </summary>
    /// <param name="folder">The folder.</param>
    /// <param name="baseFolder">The base of what is no whole model; null for a whole one.</param>
    /// <param name="options">How the base is read: dtype, device, 4-bit or 8-bit; null for stored dtypes.</param>
    /// <returns>Model, adapter and processor; the caller disposes it.</returns>
    /// <exception cref="CheckpointException">The folder is none of these, or needs a base, or a base is given that it doesn't need.</exception>
    /// <exception cref="CheckpointMismatchException">Base and folder do not make a model together: tensors are missing, unexpected, or of another shape.</exception>
    /// <exception cref="VisionTowerNotFoundException">The vision tower's folder is not where the configuration says.</exception>
    /// <exception cref="AdapterTensorsException">The adapter does not fit the base.</exception>
    /// <exception cref="WrongBaseException">The adapter was trained on another base.</exception>
    public static PretrainedLlava Load(string folder, string? baseFolder = null, LlavaLoadOptions? options = null)
    {
        ArgumentException.ThrowIfNullOrEmpty(folder);
        PeftEnvironment.EnsureLibtorch();
        options ??= new LlavaLoadOptions();
        bool whole = Array.Exists(Weights, w => File.Exists(Path.Combine(folder, w)));
        bool adapter = File.Exists(Path.Combine(folder, "adapter_config.json")), stage1 = File.Exists(Path.Combine(folder, Stage1));
        if (whole && baseFolder is null) return Complete(LlavaModel.Load(folder, options), null, folder, null);
        if (!adapter && !stage1)
        {
            throw whole
                ? new CheckpointException(folder, "it holds a whole model, and a base is given", "Load it without the base.")
                : new CheckpointException(folder, $"it holds no model, no adapter_config.json and no {Stage1}", "Name the folder of a whole model, of a LoRA run or of stage 1.");
        }
        if (baseFolder is null)
            throw new CheckpointException(folder, $"it holds {(adapter ? "an adapter" : "a projector")} and no model{BaseHint(folder)}", "Give the folder of the base too.");
        var model = LoadOn(baseFolder, folder, adapter, options);
        PeftModel? peft = null;
        try
        {
            if (adapter) peft = TrainedFolder.Load(model, folder);
            return Complete(model, peft, folder, baseFolder);
        }
        catch
        {
            peft?.Dispose();
            model.Dispose();
            throw;
        }
    }

    /// <summary>Releases adapter and model.</summary>
    public void Dispose()
    {
        Peft?.Dispose();
        Model.Dispose();
    }

    private static LlavaModel LoadOn(string baseFolder, string folder, bool adapter, LlavaLoadOptions options)
    {
        string others = Path.Combine(folder, adapter ? NonLoraTrainables.FileName : Stage1);
        var config = options.Config ?? LlavaConfig.Load(baseFolder);
        // The run's configuration describes the two together; a llava-hf base and what was trained on it have the same one.
        bool together = File.Exists(Path.Combine(folder, "config.json")) && config.Layout is CheckpointLayout.Original or CheckpointLayout.Llama;
        if (!together) return LlavaModel.Load(baseFolder, options);
        using var overlay = BaseOverlay.Open(folder, File.Exists(others) ? others : null);
        return LlavaLoader.Load(baseFolder, options with { Config = options.Config ?? LlavaConfig.Load(folder) }, overlay);
    }

    private static PretrainedLlava Complete(LlavaModel model, PeftModel? peft, string folder, string? baseFolder)
    {
        try
        {
            bool own = baseFolder is null || Array.Exists(TokenizerFiles, f => File.Exists(Path.Combine(folder, f)));
            var tokenizer = LlamaTokenizer.FromFolder(own ? folder : baseFolder!);
            if (!own) tokenizer = WithRunsTokens(tokenizer, model.Config);
            var images = model.Config.HasVision ? ImagesOf(model, baseFolder is null ? [folder] : [folder, baseFolder]) : null;
            return new PretrainedLlava(model, peft, LlavaProcessor.Of(model.Config, tokenizer, images));
        }
        catch when (baseFolder is null)
        {
            model.Dispose();
            throw;
        }
    }

    // As LLaVA's builder adds them, where the model has rows for them.
    private static LlamaTokenizer WithRunsTokens(LlamaTokenizer tokenizer, LlavaConfig config)
    {
        string[] tokens =
        [
            .. config.UseImagePatchToken ? [ImageTokens.Patch] : Array.Empty<string>(),
            .. config.UseImageStartEnd ? [MultimodalText.ImageStart, MultimodalText.ImageEnd] : Array.Empty<string>(),
        ];
        int missing = tokens.Count(t => tokenizer.IdOf(t) is null);
        return missing > 0 && tokenizer.Count + missing <= config.Language.VocabularySize ? tokenizer.WithAddedTokens(tokens) : tokenizer;
    }

    private static ClipImageProcessor ImagesOf(LlavaModel model, string[] folders)
    {
        string[] places = [.. folders.SelectMany(f => new[] { Path.Combine(f, VisionTowerFiles.ImageSettings), Path.Combine(f, "processor_config.json") })];
        ImageProcessorConfig settings;
        if (Array.Find(places, File.Exists) is { } path)
        {
            settings = ImageProcessorConfig.Load(path);
        }
        else if (model.Tower?.ImageSettings is { } text)
        {
            using var json = JsonDocument.Parse(text);
            settings = ImageProcessorConfig.FromJson(json.RootElement, VisionTowerFiles.ImageSettings);
        }
        else
        {
            throw new ImageProcessorConfigException(folders[0],
                [$"No image settings are there; looked for {string.Join(", ", places)} and in the tower's folder. Copy the vision tower's preprocessor_config.json into the folder."]);
        }
        return new ClipImageProcessor(settings, AspectPolicies.Parse(model.Config.ImageAspectRatio), model.Config.GridPinpoints);
    }

    private static string BaseHint(string folder)
    {
        string path = Path.Combine(folder, "adapter_config.json");
        if (!File.Exists(path)) return "";
        using var json = JsonDocument.Parse(File.ReadAllBytes(path));
        return json.RootElement.TryGetProperty("base_model_name_or_path", out var name) && name.ValueKind == JsonValueKind.String ? $" (its base was {name.GetString()})" : "";
    }
}
