using System.Globalization;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>The kinds of layers that can carry LoRA.</summary>
public enum TargetKind
{
    /// <summary>A <see cref="FrozenLinear"/>, an <see cref="ITiedLinear"/> or a TorchSharp <see cref="TorchSharp.Modules.Linear"/>.</summary>
    Linear,

    /// <summary>An <see cref="IEmbeddingTable"/> or a TorchSharp <see cref="TorchSharp.Modules.Embedding"/>.</summary>
    Embedding,

    /// <summary>A TorchSharp <see cref="TorchSharp.Modules.Conv2d"/>.</summary>
    Conv2d,
}

/// <summary>One layer that would get LoRA.</summary>
/// <param name="Path">Its outer path.</param>
/// <param name="Kind">What it is.</param>
/// <param name="InFeatures">Columns of A: inputs, rows of the table, or input channels times kernel.</param>
/// <param name="OutFeatures">Rows of B.</param>
/// <param name="Rank">r.</param>
/// <param name="Alpha">alpha.</param>
/// <param name="Scaling">The factor of B A.</param>
public sealed record PlannedTarget(string Path, TargetKind Kind, long InFeatures, long OutFeatures, int Rank, double Alpha, double Scaling)
{
    /// <summary>The groups of a convolution, over which B is split; 1 for all others.</summary>
    public long Groups { get; init; } = 1;

    /// <summary>Elements of A and B.</summary>
    public long Parameters => Rank * (InFeatures + OutFeatures / Groups);
}

/// <summary>What <see cref="PeftModelExtensions.GetPeftModel"/> would do to a model; making it changes nothing.</summary>
public sealed record AdapterPlan
{
    private AdapterPlan(
        IReadOnlyList<PlannedTarget> targets, IReadOnlyList<string> modulesToSave, string? tiedModule, IReadOnlyDictionary<string, IReadOnlyList<long>> tokens, string? tiedTokens,
        IReadOnlyList<string> unmatched)
    {
        Targets = targets;
        ModulesToSave = modulesToSave;
        TiedModule = tiedModule;
        Tokens = tokens;
        TiedTokens = tiedTokens;
        Unmatched = unmatched;
    }

    /// <summary>The layers that get LoRA, in the model's order.</summary>
    public IReadOnlyList<PlannedTarget> Targets { get; }

    /// <summary>The outer paths of the modules that are trained in full.</summary>
    public IReadOnlyList<string> ModulesToSave { get; }

    /// <summary>The output head that uses the embedding's copy in <see cref="ModulesToSave"/>, or null.</summary>
    public string? TiedModule { get; }

    /// <summary>The rows that are trained, by the outer path of an embedding or an output head.</summary>
    public IReadOnlyDictionary<string, IReadOnlyList<long>> Tokens { get; }

    /// <summary>The output head that uses the embedding's rows in <see cref="Tokens"/>, or null.</summary>
    public string? TiedTokens { get; }

    /// <summary>Entries of the settings that match nothing: <c>rank_pattern['q']</c>, <c>target_modules 'qproj'</c>, …</summary>
    public IReadOnlyList<string> Unmatched { get; }

    /// <summary>The last parts of the paths of all modules that can carry LoRA.</summary>
    internal IReadOnlyList<string> Present { get; private init; } = [];

    /// <summary>Elements of all A and B.</summary>
    public long Parameters => Targets.Sum(t => t.Parameters);

    /// <summary>Plans an adapter.</summary>
    /// <param name="model">The model, with or without adapters.</param>
    /// <param name="config">The adapter's settings.</param>
    /// <returns>The plan.</returns>
    /// <exception cref="InvalidLoraConfigException">The settings cannot be.</exception>
    /// <exception cref="TargetNotFoundException">No layer is meant, or a module to save does not exist.</exception>
    /// <exception cref="UnsupportedTargetException">A module is meant that cannot carry LoRA.</exception>
    public static AdapterPlan For(nn.Module model, LoraConfig config)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(config);
        config.Validate();
        var replication = config.LayerReplication is { } map && !new ModelNames(model).Hosts().Any() ? LayerReplication.Apply(model, map) : null;
        try
        {
            return ForPresent(model, config);
        }
        finally
        {
            replication?.Undo();
        }
    }

    /// <summary>Plans an adapter on a model whose layers are replicated already.</summary>
    internal static AdapterPlan ForPresent(nn.Module model, LoraConfig config)
    {
        config.Validate();
        var names = new ModelNames(model);
        var matcher = new TargetMatcher(config);
        matcher.StartAccount();
        var targets = new List<PlannedTarget>();
        var toSave = new List<string>();
        var fitting = new List<string>();
        foreach (var (path, module) in names.Modules())
        {
            var original = (module as IAdapterHost)?.Original ?? module;
            var kind = KindOf(original);
            if (kind is not null) fitting.Add(path);
            if (matcher.ModuleToSave(path) is not null) toSave.Add(path);
            bool byModule = IsReached(config, path, names) && matcher.Matches(path, kind == TargetKind.Linear && path != names.OutputHead);
            bool byParameter = !byModule && IsTargetParameter(config, path, kind);
            bool byTie = !byModule && IsTied(model, config, matcher, names, path);
            if (!byModule && !byParameter && !byTie) continue;
            if (kind is null) throw new UnsupportedTargetException(path, Refusal(original));
            if (kind == TargetKind.Embedding && config.LoraBOwnBias)
                throw new UnsupportedTargetException(path, "an embedding cannot have lora_bias, which would never be trained; set it to false, or leave the embedding out (exclude_modules).");
            targets.Add(TargetFor(path, kind.Value, original, matcher, config));
        }
        CheckFound(config, targets, toSave, fitting);
        var tokens = TokensOf(config, names, fitting);
        var parts = model as IAdapterTargets;
        string? tiedModule = EmbeddingTies.OfModules(parts, config, toSave), tiedTokens = EmbeddingTies.OfTokens(parts, config, tokens);
        var unmatched = matcher.UnusedTargets.Select(t => $"target_modules '{t}'").Concat(UnusedParameters(config, fitting)).Concat(matcher.UnusedKeys).Order(StringComparer.Ordinal);
        return new AdapterPlan(targets, toSave, tiedModule, tokens, tiedTokens, [.. unmatched]) { Present = Ends(fitting) };
    }

    /// <summary>A line for each layer and the sum.</summary>
    /// <returns>The text.</returns>
    public override string ToString()
        => string.Join('\n', Targets.Select(t => string.Create(CultureInfo.InvariantCulture,
                $"{t.Path}: {t.Kind} {t.InFeatures} -> {t.OutFeatures}, r {t.Rank}, scaling {t.Scaling:G5}, {t.Parameters} parameters"))
            .Concat(ModulesToSave.Select(m => $"{m}: trained in full"))
            .Concat(Tokens.Select(t => $"{t.Key}: {t.Value.Count} rows trained"))
            .Concat(TiedModule is null ? [] : [$"{TiedModule}: uses the embedding's copy"])
            .Concat(TiedTokens is null ? [] : [$"{TiedTokens}: uses the embedding's rows"])
            .Concat(Unmatched.Select(u => $"{u} matches nothing"))
            .Append(string.Create(CultureInfo.InvariantCulture, $"{Targets.Count} layers, {Parameters} parameters")));

    private static bool IsReached(LoraConfig config, string path, ModelNames names)
        => config.TargetModules is not { Pattern: null } list || list.Contains(path) || names.IsReachedByName(path);

    internal static TargetKind? KindOf(nn.Module module) => module switch
    {
        FrozenLinear or Linear or ITiedLinear => TargetKind.Linear,
        IEmbeddingTable or Embedding => TargetKind.Embedding,
        Conv2d => TargetKind.Conv2d,
        _ => null,
    };

    private static bool IsTargetParameter(LoraConfig config, string path, TargetKind? kind)
    {
        if (config.TargetParameters is not { } parameters) return false;
        bool meant = parameters.Any(p => IsWeightOf(path, p));
        if (meant && kind != TargetKind.Linear)
            throw new UnsupportedTargetException(path, "target_parameters can mean the weight of a linear layer only; use target_modules.");
        return meant;
    }

    private static bool IsWeightOf(string path, string parameter)
    {
        string weight = path + ".weight";
        return weight == parameter || weight.EndsWith("." + parameter, StringComparison.Ordinal);
    }

    private static IEnumerable<string> UnusedParameters(LoraConfig config, List<string> fitting)
        => (config.TargetParameters ?? []).Where(p => !fitting.Any(path => IsWeightOf(path, p))).Select(p => $"target_parameters '{p}'");

    // With tied embeddings kept tied, what adapts one of the two adapts the other.
    private static bool IsTied(nn.Module model, LoraConfig config, TargetMatcher matcher, ModelNames names, string path)
    {
        if (!config.EnsureWeightTying || model is not IAdapterTargets { TiesEmbeddings: true } || names.InputEmbedding is null || names.OutputHead is null) return false;
        return (path == names.InputEmbedding && matcher.Matches(names.OutputHead, isLinear: false))
            || (path == names.OutputHead && matcher.Matches(names.InputEmbedding, isLinear: false));
    }

    private static Dictionary<string, IReadOnlyList<long>> TokensOf(LoraConfig config, ModelNames names, List<string> fitting)
    {
        var tokens = new Dictionary<string, IReadOnlyList<long>>();
        foreach (var (name, indices) in config.TrainableTokens ?? new Dictionary<string, IReadOnlyList<long>>())
        {
            var paths = name.Length > 0
                ? fitting.Where(p => p == name || p.EndsWith("." + name, StringComparison.Ordinal)).ToList()
                : names.InputEmbedding is { } input ? [input] : fitting.Where(p => p.EndsWith("embed_tokens", StringComparison.Ordinal)).ToList();
            if (paths.Count == 0) throw new TargetNotFoundException("trainable_token_indices", [name.Length > 0 ? name : "embed_tokens"], Ends(fitting), fitting.Count);
            foreach (string path in paths) tokens[path] = indices;
        }
        return tokens;
    }

    private static List<string> Ends(List<string> paths) => [.. paths.Select(p => p[(p.LastIndexOf('.') + 1)..]).Distinct().Order(StringComparer.Ordinal)];

    private static string Refusal(nn.Module module)
        => $"{module.GetType().Name} cannot carry LoRA; it works on linear layers, embeddings and two-dimensional convolutions. "
            + "Name the layers inside it, or list it in modules_to_save to train it in full.";

    private static PlannedTarget TargetFor(string path, TargetKind kind, nn.Module original, TargetMatcher matcher, LoraConfig config)
    {
        var (inside, outside) = original switch
        {
            FrozenLinear linear => (linear.InFeatures, linear.OutFeatures),
            Linear linear => (linear.in_features, linear.out_features),
            ITiedLinear tied => (tied.Weight.shape[1], tied.Weight.shape[0]),
            Conv2d conv => (conv.in_channels * conv.weight.shape[2] * conv.weight.shape[3], conv.out_channels),
            _ => TableShape(original),
        };
        int rank = matcher.RankOf(path);
        double alpha = matcher.AlphaOf(path);
        if (original is Conv2d grouped) LoraConv2d.CheckGroups(path, grouped, config, rank);
        return new PlannedTarget(path, kind, inside, outside, rank, alpha, config.ScalingOf(rank, alpha)) { Groups = (original as Conv2d)?.groups ?? 1 };
    }

    private static (long, long) TableShape(nn.Module embedding)
    {
        var weight = LoraEmbedding.TableOf(embedding);
        return (weight.shape[0], weight.shape[1]);
    }

    private static void CheckFound(LoraConfig config, List<PlannedTarget> targets, List<string> toSave, List<string> fitting)
    {
        var present = Ends(fitting);
        if (targets.Count == 0 && config.TrainableTokens is null)
        {
            bool byParameter = config.TargetParameters is { Count: > 0 } && config.TargetModules is not { Count: > 0 };
            throw byParameter
                ? new TargetNotFoundException("target_parameters", config.TargetParameters!, [.. present.Select(p => p + ".weight")], fitting.Count)
                : new TargetNotFoundException("target_modules", WantedOf(config), present, fitting.Count);
        }
        foreach (string module in config.ModulesToSave ?? [])
        {
            if (!toSave.Any(p => p == module || p.EndsWith("." + module, StringComparison.Ordinal)))
                throw new TargetNotFoundException("modules_to_save", [module], present, fitting.Count);
        }
    }

    private static IReadOnlyList<string> WantedOf(LoraConfig config)
    {
        var wanted = config.TargetModules?.Pattern is { } pattern ? [pattern] : (config.TargetModules ?? Enumerable.Empty<string>()).ToList();
        if (config.LayersToTransform is { } layers) wanted[^1] += $" in layers {string.Join(", ", layers)}";
        return wanted;
    }
}
