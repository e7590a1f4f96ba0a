using Peft.Core;

namespace Peft.Llava;

/// <summary>The vision tower of a LLaVA checkpoint is in a folder of its own, and that folder was not found.</summary>
public sealed class VisionTowerNotFoundException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="checkpoint">The checkpoint's folder.</param>
    /// <param name="tower">What the configuration or the caller named.</param>
    /// <param name="tried">The folders looked for.</param>
    public VisionTowerNotFoundException(string checkpoint, string tower, IReadOnlyList<string> tried)
        : base($"{checkpoint}: the vision tower '{tower}' is no folder with a config.json. Looked for: {string.Join(", ", tried)}. "
            + "Download it (a CLIP folder, for example `hf download openai/clip-vit-large-patch14-336 --local-dir clip-vit-large-patch14-336`) and name it with "
            + "LlavaLoadOptions.VisionTower, or --vision_tower on the command line.")
    {
        Checkpoint = checkpoint;
        Tower = tower;
        Tried = tried;
    }

    /// <summary>The checkpoint's folder.</summary>
    public string Checkpoint { get; }

    /// <summary>What the configuration or the caller named.</summary>
    public string Tower { get; }

    /// <summary>The folders looked for.</summary>
    public IReadOnlyList<string> Tried { get; }
}
