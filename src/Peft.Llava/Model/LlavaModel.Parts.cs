using TorchSharp.Modules;

namespace Peft.Llava;

public sealed partial class LlavaModel
{
    private const string ProjectorPrefix = "model.mm_projector.";

    /// <summary>What describes the tower in its own folder; null for a model that was not loaded from files, or has it in its configuration.</summary>
    internal TowerSettings? Tower { get; set; }

    /// <summary>Parts that the base's own files do not hold as they are here: drawn, or taken from a stage-1 file. Results without them could not be loaded.</summary>
    internal ModelPart BesideBase { get; set; }

    /// <summary>The part a parameter belongs to.</summary>
    /// <param name="name">Its path in memory, as <c>named_parameters()</c> gives it.</param>
    /// <returns>One part.</returns>
    public static ModelPart PartOf(string name)
    {
        ArgumentNullException.ThrowIfNull(name);
        if (name.StartsWith("lm_head", StringComparison.Ordinal)) return ModelPart.Head;
        if (name.StartsWith("model.embed_tokens", StringComparison.Ordinal)) return ModelPart.Embedding;
        if (name.StartsWith(ProjectorPrefix, StringComparison.Ordinal)) return ModelPart.Projector;
        if (name.StartsWith("model.vision_tower.", StringComparison.Ordinal)) return ModelPart.VisionTower;
        return name == "model.image_newline" ? ModelPart.ImageNewline : ModelPart.Decoder;
    }

    /// <summary>The parameters of some parts, adapters' included.</summary>
    /// <param name="parts">Which parts.</param>
    /// <returns>Path in memory and parameter; the parameters stay the model's.</returns>
    public IEnumerable<(string Name, Parameter Parameter)> Parameters(ModelPart parts)
        => named_parameters().Where(p => parts.HasFlag(PartOf(p.name))).Select(p => (p.name, p.parameter));

    /// <summary>Makes the floating-point parameters of some parts trained or frozen; adapters that are on a part are left alone.</summary>
    /// <param name="parts">Which parts.</param>
    /// <param name="trainable">Trained or frozen.</param>
    public void SetTrainable(ModelPart parts, bool trainable)
    {
        foreach (var (name, parameter) in Parameters(parts))
            if (parameter.is_floating_point() && !name.Contains("lora_", StringComparison.Ordinal)) parameter.requires_grad_(trainable);
    }
}
