using Peft.Core;

namespace Peft.Llava;

/// <content>What adapters have to know: names of the outside world, and which part they are meant for.</content>
public sealed partial class LlavaModel : IModuleNames, IAdapterTargets
{
    private const string LayersPath = "model.layers";
    private const string HeadPath = "lm_head";
    private const string EmbeddingPath = "model.embed_tokens";
    private const string TowerPath = "model.vision_tower";
    private const string ProjectorPath = "model.mm_projector";

    /// <summary>
    /// The names that adapters of a model in a llava-hf layout get: those of the module tree of one of transformers' versions. Adapters with the names of
    /// another version are loaded as they are and saved with these. The original layout and plain language models have one way of naming only.
    /// </summary>
    public HuggingFaceKeyStyle AdapterNames { get; set; } = HuggingFaceKeyStyle.ModuleTree5;

    private bool HasForeignNames => Config.IsHuggingFace;

    /// <inheritdoc/>
    public IReadOnlyDictionary<string, IReadOnlyList<string>> AdapterGroups => new Dictionary<string, IReadOnlyList<string>>
    {
        ["language"] = [ToExternal(LayersPath + ".0")[..^2], ToExternal(HeadPath)],
        ["vision"] = [TowerOutside],
        ["projector"] = [ToExternal(ProjectorPath)],
    };

    /// <inheritdoc/>
    public string? InputEmbedding => ToExternal(EmbeddingPath);

    /// <inheritdoc/>
    public string? OutputHead => ToExternal(HeadPath);

    /// <inheritdoc/>
    public bool TiesEmbeddings
        => Config.Language.TieWordEmbeddings && Below(_head) is ITiedLinear head && Below(_model.Embedding) is IEmbeddingTable table && head.Weight.Handle == table.Weight.Handle;

    /// <summary>The weight of a head that has none of its own; null otherwise.</summary>
    internal TorchSharp.Modules.Parameter? BorrowedHead => (Below(_head) as ITiedLinear)?.Weight;

    private static TorchSharp.torch.nn.Module Below(TorchSharp.torch.nn.Module module) => (module as IAdapterHost)?.Original ?? module;

    private string TowerOutside => HasForeignNames ? ToExternal("model.vision_tower.vision_tower.vision_model.").TrimEnd('.') : TowerPath;

    /// <inheritdoc/>
    public string ToExternal(string path) => HasForeignNames ? HuggingFaceKeys.ToExternal(path, AdapterNames) : path;

    /// <inheritdoc/>
    public string ToInternal(string path) => HasForeignNames ? HuggingFaceKeys.ToInternal(path, AdapterNames) ?? path : path;

    /// <inheritdoc/>
    public Func<string, string>? TranslationOf(IReadOnlyCollection<string> names)
    {
        if (!HasForeignNames || HuggingFaceKeys.DetectAdapter(names) is not { } style || style == AdapterNames) return null;
        return name => HuggingFaceKeys.ToInternal(name, style) is { } inner ? ToExternal(inner) : name;
    }

    /// <summary>
    /// LLaVA's script puts LoRA on before the vision tower is loaded, so <c>q_proj</c> never means the tower's there; transformers' LLaVA has its tower
    /// from the start, and PEFT means it too. So does LLaVA's script where <c>unfreeze_mm_vision_tower</c> is set, because the tower is then loaded
    /// with the base.
    /// </summary>
    /// <param name="path">The outer path.</param>
    /// <returns>False for a frozen tower in the original layout.</returns>
    public bool IsReachedByName(string path)
    {
        ArgumentNullException.ThrowIfNull(path);
        return HasForeignNames || Config.UnfreezeVisionTower || !path.StartsWith(TowerPath + ".", StringComparison.Ordinal);
    }
}
