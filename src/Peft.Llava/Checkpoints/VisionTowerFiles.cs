using System.Text.Json.Nodes;
using Peft.Core;

namespace Peft.Llava;

/// <summary>The JSON that describes a tower in its own folder: <c>config.json</c> and, where it has one, <c>preprocessor_config.json</c>.</summary>
internal sealed record TowerSettings(string Config, string? ImageSettings)
{
    public static TowerSettings Read(string folder)
    {
        string images = Path.Combine(folder, VisionTowerFiles.ImageSettings);
        return new TowerSettings(File.ReadAllText(Path.Combine(folder, "config.json")), File.Exists(images) ? File.ReadAllText(images) : null);
    }
}

/// <summary>
/// Where the tower of a checkpoint in the original layout is: in the folder that <c>mm_vision_tower</c> names, or among the checkpoint's own weights. What this
/// library saves as a whole model describes its tower in <c>vision_tower.json</c>, and so loads by its folder alone, wherever that is.
/// </summary>
internal static class VisionTowerFiles
{
    /// <summary>The tower's <c>config.json</c> in a folder that holds the tower's weights among its own.</summary>
    public const string Description = "vision_tower.json";

    public const string ImageSettings = "preprocessor_config.json";

    /// <summary>Whether the tower's weights are those of the checkpoint itself: it was trained with the model, or saved with it.</summary>
    public static bool IsInside(string folder, LlavaConfig config, IEnumerable<string> keys)
        => config.Layout == CheckpointLayout.Original && (config.UnfreezeVisionTower || IsDescribed(folder))
            && keys.Any(k => k.StartsWith(ModelManifest.TowerPrefix, StringComparison.Ordinal));

    public static bool IsDescribed(string folder) => File.Exists(Path.Combine(folder, Description));

    public static TowerSettings ReadOwn(string folder)
    {
        string images = Path.Combine(folder, ImageSettings);
        return new TowerSettings(File.ReadAllText(Path.Combine(folder, Description)), File.Exists(images) ? File.ReadAllText(images) : null);
    }

    /// <summary>The folders that a name may mean: relative to the checkpoint, so that the two can be moved together, and then to the working folder, as LLaVA reads it.</summary>
    public static string[] Places(IEnumerable<string> folders, string name)
        => [.. folders.Select(f => Path.GetFullPath(Path.Combine(f, name))).Append(Path.GetFullPath(name)).Distinct(StringComparer.Ordinal)];

    /// <summary>Writes what a folder with a whole model needs to be loaded by itself.</summary>
    /// <param name="model">The model.</param>
    /// <param name="companions">The folder whose companions were copied; null for none.</param>
    /// <param name="folder">The folder.</param>
    public static void Write(LlavaModel model, string? companions, string folder)
    {
        if (model.Config is not { Layout: CheckpointLayout.Original, Vision: { } vision }) return;
        AtomicFile.WriteText(Path.Combine(folder, Description), model.Tower?.Config ?? PythonJson.Write(Describe(vision)) + "\n");
        bool copied = companions is not null && File.Exists(Path.Combine(companions, ImageSettings));
        if (!copied && model.Tower?.ImageSettings is { } images) AtomicFile.WriteText(Path.Combine(folder, ImageSettings), images);
    }

    private static JsonObject Describe(VisionConfig vision) => new()
    {
        ["hidden_act"] = "quick_gelu",
        ["hidden_size"] = vision.HiddenSize,
        ["image_size"] = vision.ImageSize,
        ["intermediate_size"] = vision.IntermediateSize,
        ["layer_norm_eps"] = PythonJson.Float(vision.NormEpsilon),
        ["model_type"] = "clip_vision_model",
        ["num_attention_heads"] = vision.HeadCount,
        ["num_channels"] = vision.ChannelCount,
        ["num_hidden_layers"] = vision.LayerCount,
        ["patch_size"] = vision.PatchSize,
    };
}
