using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Core;

public sealed partial class PeftModel
{
    /// <summary>Makes a new adapter of others (PEFT's <c>add_weighted_adapter</c>); it is not active and starts as an ordinary LoRA adapter.</summary>
    /// <param name="adapters">The adapters, at least one.</param>
    /// <param name="weights">A weight for each; may be negative.</param>
    /// <param name="name">The new adapter's name.</param>
    /// <param name="type">How; with a single adapter it is always <see cref="CombinationType.Linear"/>.</param>
    /// <param name="options">What the type needs beside.</param>
    /// <exception cref="AdapterNotFoundException">There is no such adapter.</exception>
    /// <exception cref="AdapterNameException">An adapter cannot be called that, or one is.</exception>
    /// <exception cref="AdapterCombinationException">Weights, ranks, density or kinds do not fit; nothing has changed.</exception>
    /// <exception cref="AdapterStateException">Adapters are merged.</exception>
    public void AddWeightedAdapter(
        IReadOnlyList<string> adapters, IReadOnlyList<double> weights, string name, CombinationType type = CombinationType.Svd, CombinationOptions? options = null)
    {
        using var change = Change();
        ArgumentNullException.ThrowIfNull(adapters);
        ArgumentNullException.ThrowIfNull(weights);
        options ??= new CombinationOptions();
        CheckName(name);
        if (MergedOrSuspended.Count > 0) throw new AdapterStateException("Adapters are merged; call Unmerge before combining.");
        if (adapters.Count == 1) type = CombinationType.Linear;
        var combination = new AdapterCombination(type, options);
        CheckCombination(adapters, weights, type, combination, options);
        int rank = type == CombinationType.Cat ? adapters.Sum(LargestRank)
            : combination.OnFactors ? LargestRank(adapters[0]) : options.SvdRank ?? adapters.Max(LargestRank);
        var targets = Layers.Where(l => adapters.Any(l.Adapters.ContainsKey)).ToList();
        var config = ConfigOf(adapters[0]) with
        {
            Rank = rank, Alpha = rank, UseRsLora = false, Init = LoraInit.Default, Loftq = null, ExcludeModules = null, LayersToTransform = null, LayersPattern = null,
            RankPattern = new OrderedDictionary<string, int>(), AlphaPattern = new OrderedDictionary<string, double>(),
            TargetModules = TargetModules.Names([.. targets.Select(l => l.ModulePath)]), Dropout = 0, InferenceMode = true,
        };
        foreach (var layer in targets) AddCombined(layer, adapters, weights, name, config, combination, rank);
        _configs.Add(name, config);
        _trainable[name] = false;
    }

    private static void AddCombined(
        LoraLayer layer, IReadOnlyList<string> adapters, IReadOnlyList<double> weights, string name, LoraConfig config, AdapterCombination combination, int rank)
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var parts = adapters.Select((a, i) => (Name: a, Weight: weights[i])).Where(p => layer.Adapters.ContainsKey(p.Name))
            .Select(p => (layer.Adapters[p.Name], p.Weight)).ToList();
        var (a, b) = combination.Combine(layer, parts, rank);
        static Parameter Own(Tensor t) => new(t.contiguous().clone().DetachFromDisposeScope(), requires_grad: false);
        layer.Add(new LoraAdapter(name, config, rank, rank, Own(a), Own(b), null));
    }

    private int LargestRank(string adapter) => Layers.Where(l => l.Adapters.ContainsKey(adapter)).Max(l => l.Adapters[adapter].Rank);

    private void CheckCombination(
        IReadOnlyList<string> adapters, IReadOnlyList<double> weights, CombinationType type, AdapterCombination combination, CombinationOptions options)
    {
        if (adapters.Count == 0) throw new AdapterCombinationException("There is nothing to combine; name at least one adapter.");
        if (!Enum.IsDefined(type)) throw new AdapterCombinationException($"There is no combination type {type}; use one of {string.Join(", ", Enum.GetNames<CombinationType>())}.");
        if (weights.Count != adapters.Count) throw new AdapterCombinationException($"{adapters.Count} adapters have {weights.Count} weights; give one for each.");
        foreach (string adapter in adapters) CheckCombinable(adapter);
        if (combination.Prunes && options.Density is not (> 0 and <= 1))
            throw new AdapterCombinationException($"{type} prunes and needs a density above 0 and at most 1, got {options.Density?.ToString(System.Globalization.CultureInfo.InvariantCulture) ?? "none"}.");
        if (options.SvdRank is < 1) throw new AdapterCombinationException($"The rank of the combination must be at least 1, got {options.SvdRank}.");
        if (!combination.OnFactors) return;
        foreach (var layer in Layers)
        {
            var ranks = adapters.Where(layer.Adapters.ContainsKey).Select(a => layer.Adapters[a].Rank).ToList();
            if (ranks.Distinct().Count() > 1 || (ranks.Count > 0 && ranks[0] != LargestRank(adapters[0])))
                throw new AdapterCombinationException($"{type} needs equal ranks, but at {layer.ModulePath} they are {string.Join(", ", ranks)}; use Cat or a type by SVD.");
        }
    }

    private void CheckCombinable(string adapter)
    {
        var config = ConfigOf(adapter);
        string? what = config.UseDora ? "use_dora" : config.LoraBOwnBias ? "lora_bias" : config.Bias != LoraBias.None ? "bias" : config.ModulesToSave is { Count: > 0 } ? "modules_to_save"
            : config.TrainableTokens is not null ? "trainable_token_indices" : config.TargetParameters is { Count: > 0 } ? "target_parameters" : null;
        if (what is not null) throw new AdapterCombinationException($"Adapter '{adapter}' has {what}, which cannot be combined; combine adapters of plain LoRA factors.");
    }
}
