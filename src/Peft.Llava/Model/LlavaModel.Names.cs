using Peft.Core;

namespace Peft.Llava;

public sealed partial class LlavaModel
{
    private const string TowerPath = "model.vision_tower";

    private bool HasHuggingFaceNames => Config.Layout is CheckpointLayout.HuggingFace or CheckpointLayout.HuggingFaceNext;

    /// <summary>The parts that adapters may mean: <c>language</c>, <c>projector</c>, <c>vision</c>; outer paths.</summary>
    public IReadOnlyDictionary<string, IReadOnlyList<string>> AdapterGroups => new Dictionary<string, IReadOnlyList<string>>
    {
        ["language"] = [.. Enumerable.Range(0, _model.Layers.Count).Select(i => ToExternal($"model.layers.{i}"))],
        ["projector"] = Projector is null ? [] : [ToExternal("model.mm_projector")],
        ["vision"] = VisionTower is null ? [] : [ToExternal(TowerPath)],
    };

    /// <inheritdoc/>
    public string? InputEmbedding => ToExternal("model.embed_tokens");

    /// <inheritdoc/>
    public string? OutputHead => "lm_head";

    /// <inheritdoc/>
    public bool TiesEmbeddings => Config.Language.TieWordEmbeddings;

    /// <summary>
    /// Whether a bare name can mean this module. In the original layout it can't mean the vision tower, unless <c>unfreeze_mm_vision_tower</c> is
    /// set: LLaVA loads it after LoRA is on, so that its <c>q_proj</c>, <c>k_proj</c> and <c>v_proj</c> are not those that are meant.
    /// </summary>
    /// <param name="path">The outer path.</param>
    public bool IsReachedByName(string path)
    {
        ArgumentNullException.ThrowIfNull(path);
        return Config.Layout != CheckpointLayout.Original || Config.UnfreezeVisionTower || !path.StartsWith(TowerPath + ".", StringComparison.Ordinal);
    }

    /// <summary>
    /// The path in the outside world: the same in the original layout; for a model loaded from a llava-hf checkpoint the path that transformers 5
    /// gives it, which PEFT's adapter files use (<c>model.language_model.layers…</c>, <c>model.vision_tower.encoder…</c>).
    /// </summary>
    /// <param name="path">A path in memory.</param>
    /// <returns>The outer path.</returns>
    public string ToExternal(string path)
        => HasHuggingFaceNames ? HuggingFaceKeys.ToExternal(path, HuggingFaceKeyStyle.ModuleTree5) : path;

    /// <summary>The path in memory of an outer path.</summary>
    /// <param name="path">An outer path.</param>
    /// <returns>The path in memory; a path that belongs to no part of the model comes back as it is.</returns>
    public string ToInternal(string path)
        => HasHuggingFaceNames ? HuggingFaceKeys.ToInternal(path, HuggingFaceKeyStyle.ModuleTree5) ?? path : path;
}
