using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Core;

/// <content>Another adapter in the place of one.</content>
public sealed partial class PeftModel
{
    /// <summary>
    /// Puts another adapter in the place of one, under its name (PEFT's <c>hotswap_adapter</c>): values, ranks, alphas, settings, lineage. Where the rank stays the
    /// same, the values come into the tensors there are; where it changes, the layer gets new ones. Layers that the one coming in does not have lose theirs.
    /// </summary>
    /// <param name="folder">The folder of the adapter that comes in.</param>
    /// <param name="adapter">The adapter whose place it takes.</param>
    /// <exception cref="AdapterNotFoundException">There is no such adapter.</exception>
    /// <exception cref="AdapterStateException">It is merged, or the one that comes in has layers, modules or rows that it has not, or is of another kind; nothing
    /// has changed.</exception>
    /// <exception cref="AdapterTensorsException">The file's tensors are not those that its settings mean in this model; nothing has changed.</exception>
    /// <exception cref="WrongBaseException">The adapter that comes in was made on another base; nothing has changed.</exception>
    public void HotSwap(string folder, string adapter)
    {
        using var change = Change();
        var old = ConfigOf(adapter);
        if (MergedOrSuspended.Contains(adapter)) throw new AdapterStateException($"Adapter '{adapter}' is merged; call Unmerge before swapping its weights.");
        using var files = AdapterFolder.Open(folder);
        var lineage = AdapterLineage.Read(folder);
        CheckBase(folder, lineage, BaseFingerprint);
        CheckCompanions(folder);
        var (config, reader) = AdapterTranslation.Of(BaseModel, files.Config, files.Tensors);
        using var scope = NewDisposeScope();
        var plan = AdapterPlan.For(BaseModel, config);
        CheckSwap(folder, adapter, old, config, plan);
        var tensors = ReadChecked(reader, ExpectedOf(plan, config));
        var targets = plan.Targets.ToDictionary(t => t.Path);
        bool renewed = false;
        foreach (var layer in Layers.Where(l => l.Adapters.ContainsKey(adapter)).ToList())
        {
            if (targets.TryGetValue(layer.ModulePath, out var target)) renewed |= Swap(layer, adapter, config, target);
            else
            {
                layer.Remove(adapter);
                if (!layer.AdapterNames.Any()) PutBack(layer);
            }
        }
        if (renewed && config.EnsureWeightTying) TieFactors(adapter);
        _configs[adapter] = config;
        Fill(adapter, tensors);
        _irregularities.AddRange(plan.Unmatched.Select(u => $"adapter '{adapter}': {u} matches nothing"));
        SetLineage(adapter, lineage);
        UpdateTrained();
    }

    private static bool Swap(LoraLayer layer, string adapter, LoraConfig config, PlannedTarget target)
    {
        var present = layer.Adapters[adapter];
        if (present.Rank == target.Rank)
        {
            (present.Alpha, present.Config) = (target.Alpha, config);
            present.Scaling = present.InitialScaling = target.Scaling;
            return false;
        }
        var options = new AdapterOptions { UpcastToFloat32 = present.A.dtype == ScalarType.Float32 };
        layer.Renew(adapter, () => LoraInitializer.AddAdapter(layer, adapter, config, target, options, filled: true));
        return true;
    }

    private void CheckSwap(string folder, string adapter, LoraConfig old, LoraConfig config, AdapterPlan plan)
    {
        var here = Layers.Where(l => l.Adapters.ContainsKey(adapter)).Select(l => l.ModulePath).ToHashSet();
        var there = plan.Targets.Select(t => t.Path).ToHashSet();
        if (there.FirstOrDefault(path => !here.Contains(path)) is { } added)
            throw new AdapterStateException($"The adapter in {folder} has layers that '{adapter}' has not, {added} among them; load it under another name instead.");
        List<string> whole = [.. plan.ModulesToSave, .. plan.TiedModule is { } module ? [module] : Array.Empty<string>()];
        var rows = Hosts.OfType<TokenRows>().Where(h => h.AdapterNames.Contains(adapter)).ToDictionary(h => h.ModulePath, h => h.TokensOf(adapter));
        var wanted = new Dictionary<string, IReadOnlyList<long>>(plan.Tokens);
        if (plan.TiedTokens is { } head) wanted[head] = plan.Tokens[_names.InputEmbedding!];
        var differ = new List<string>();
        void Compare(string name, bool same)
        {
            if (!same) differ.Add(name);
        }
        Compare("use_dora", config.UseDora == old.UseDora);
        Compare("lora_bias", config.LoraBOwnBias == old.LoraBOwnBias);
        Compare("bias", config.Bias == old.Bias && (config.Bias == LoraBias.None || here.Count == there.Count));
        Compare("init_lora_weights, which changes the base", !config.Init.ChangesBase && !old.Init.ChangesBase);
        Compare("ensure_weight_tying", config.EnsureWeightTying == old.EnsureWeightTying);
        Compare("layer_replication", (config.LayerReplication ?? []).SequenceEqual(old.LayerReplication ?? []));
        Compare("modules_to_save", whole.ToHashSet().SetEquals(Hosts.OfType<ModuleToSave>().Where(h => h.AdapterNames.Contains(adapter)).Select(h => h.ModulePath)));
        Compare("trainable_token_indices", rows.Count == wanted.Count && rows.All(r => wanted.TryGetValue(r.Key, out var tokens) && tokens.SequenceEqual(r.Value)));
        if (differ.Count > 0) throw new AdapterStateException($"The adapter in {folder} differs from '{adapter}' in {string.Join(", ", differ)}; load it under another name instead.");
    }
}
