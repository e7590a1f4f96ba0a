using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Core;

public sealed partial class PeftModel
{
    private static readonly string[] ReservedNames = [SampleAdapters.Base, "lora", "weight", "bias", "base_layer"];

    private readonly List<string> _irregularities = [];

    /// <summary>Puts another adapter on the model. The first one becomes active, later ones wait for <see cref="SetActive"/>.</summary>
    /// <param name="adapter">Its name.</param>
    /// <param name="config">Its settings.</param>
    /// <param name="options">How it is made.</param>
    /// <exception cref="AdapterNameException">An adapter cannot be called that, or one is.</exception>
    /// <exception cref="InvalidLoraConfigException">The settings cannot be, or do not fit the adapters there are.</exception>
    /// <exception cref="TargetNotFoundException">An entry of target_modules, of a pattern or of modules_to_save matches nothing.</exception>
    /// <exception cref="UnsupportedTargetException">A module is meant that cannot carry LoRA.</exception>
    /// <exception cref="ModuleReplacementException">A layer stands in a field that cannot hold another one.</exception>
    public void AddAdapter(string adapter, LoraConfig config, AdapterOptions? options = null)
    {
        using var change = Change();
        CheckNew(adapter, config);
        var plan = AdapterPlan.For(BaseModel, config);
        if (plan.Unmatched.Count > 0) throw new TargetNotFoundException(plan.Unmatched, plan.Present);
        foreach (var target in plan.Targets)
        {
            if (target.Rank > Math.Max(target.InFeatures, target.OutFeatures))
                throw new InvalidLoraConfigException([$"r is {target.Rank}, more than either side of {target.Path} ({target.InFeatures} -> {target.OutFeatures}); a lower rank can do the same"]);
        }
        CheckFactorable(plan, config, isNew: true);
        Attach(adapter, config, plan, options ?? new AdapterOptions(), filled: false);
        BaseFingerprint = options?.BaseFingerprint ?? BaseFingerprint;
        if (EmbeddingTies.Irregularity(BaseModel as IAdapterTargets, adapter, config, plan) is { } tie) _irregularities.Add(tie);
        _irregularities.AddRange(plan.Targets.Where(t => t.Rank > Math.Min(t.InFeatures, t.OutFeatures))
            .Select(t => $"adapter '{adapter}': r {t.Rank} is more than the smaller side of {t.Path} ({t.InFeatures} -> {t.OutFeatures})"));
        _trainable[adapter] = !config.InferenceMode;
        if (_configs.Count == 1) _context.Active = [adapter];
        UpdateTrained();
    }

    /// <summary>
    /// Makes adapters the active ones of passes that begin from now on; they alone are trained. One call switches all layers. Passes that run, and scopes
    /// that chose other adapters, keep theirs.
    /// </summary>
    /// <param name="adapters">Their names, in the order in which they are added up.</param>
    /// <exception cref="AdapterNotFoundException">There is no such adapter; nothing has changed.</exception>
    /// <exception cref="AdapterStateException">Adapters are merged.</exception>
    public void SetActive(params IReadOnlyList<string> adapters)
    {
        Check();
        using var reading = _context.Reading();
        CheckActivation(adapters);
        _context.Active = [.. adapters];
        UpdateTrained();
    }

    /// <summary>Removes an adapter.</summary>
    /// <param name="adapter">Its name.</param>
    /// <exception cref="AdapterNotFoundException">There is no such adapter.</exception>
    /// <exception cref="AdapterStateException">It is merged, or the only one.</exception>
    public void DeleteAdapter(string adapter)
    {
        using var change = Change();
        ConfigOf(adapter);
        if (MergedOrSuspended.Contains(adapter)) throw new AdapterStateException($"Adapter '{adapter}' is merged into the base; call Unmerge before deleting it.");
        CheckNotChosen(nameof(DeleteAdapter), a => a == adapter);
        if (_configs.Count == 1) throw new AdapterStateException($"Adapter '{adapter}' is the only one; call Unload to get the base model back.");
        foreach (var host in Hosts.ToList())
        {
            host.Remove(adapter);
            if (!host.AdapterNames.Any()) PutBack(host);
        }
        _configs.Remove(adapter);
        _trainable.Remove(adapter);
        _lineages.Remove(adapter);
        _context.NamesChanged();
        _context.Active = [.. _context.Active.Where(a => a != adapter)];
        if (_context.Active.Count == 0) _context.Active = [_configs.Keys.First()];
        UpdateTrained();
    }

    /// <summary>Gives an adapter another name.</summary>
    /// <param name="from">The name it has.</param>
    /// <param name="to">The name it gets.</param>
    /// <exception cref="AdapterNotFoundException">There is no such adapter.</exception>
    /// <exception cref="AdapterNameException">An adapter cannot be called that, or one is.</exception>
    public void RenameAdapter(string from, string to)
    {
        using var change = Change();
        var config = ConfigOf(from);
        CheckName(to);
        CheckNotChosen(nameof(RenameAdapter), a => a == from);
        if (_context.Suspended.Contains(from)) throw new AdapterStateException($"Adapter '{from}' is merged, and taken out until WithoutAdapter ends; rename it after that.");
        foreach (var host in Hosts) host.Rename(from, to);
        int index = _configs.IndexOf(from);
        _configs.Remove(from);
        _configs.Insert(index, to, config);
        _trainable[to] = _trainable[from];
        _trainable.Remove(from);
        _context.NamesChanged();
        if (_lineages.Remove(from, out var lineage)) _lineages[to] = lineage;
        _context.Active = [.. _context.Active.Select(a => a == from ? to : a)];
        int merged = _context.Merged.IndexOf(from);
        if (merged >= 0) _context.Merged[merged] = to;
    }

    /// <summary>Sets an adapter's factor to a multiple of what its rank and alpha give, in all layers.</summary>
    /// <param name="adapter">Its name.</param>
    /// <param name="factor">The multiple; may be negative or zero.</param>
    /// <exception cref="AdapterNotFoundException">There is no such adapter.</exception>
    /// <exception cref="AdapterStateException">It is merged.</exception>
    public void SetScale(string adapter, double factor)
    {
        ConfigOf(adapter);
        Rescale([adapter], a => a.InitialScaling * factor);
    }

    /// <summary>Multiplies the factors of the active adapters.</summary>
    /// <param name="factor">The multiple.</param>
    /// <exception cref="AdapterStateException">One of them is merged.</exception>
    public void ScaleActive(double factor) => Rescale(ActiveAdapters, a => a.Scaling * factor);

    /// <summary>Sets the factors of the active adapters to what rank and alpha give.</summary>
    /// <exception cref="AdapterStateException">One of them is merged.</exception>
    public void ResetScale() => Rescale(ActiveAdapters, a => a.InitialScaling);

    private void Rescale(IReadOnlyList<string> adapters, Func<LoraAdapter, double> scaling)
    {
        using var change = Change("Scaling");
        foreach (string adapter in adapters)
            if (MergedOrSuspended.Contains(adapter)) throw new AdapterStateException($"Adapter '{adapter}' is merged with its present scale; call Unmerge before changing it.");
        foreach (var layer in Layers)
            foreach (string adapter in adapters)
                if (layer.Adapters.TryGetValue(adapter, out var found)) found.Scaling = scaling(found);
    }

    // A decomposition of the weight has no more parts than its smaller side.
    private static void CheckFactorable(AdapterPlan plan, LoraConfig config, bool isNew)
    {
        if (!config.Init.ChangesBase && !(isNew && config.Init == LoraInit.Orthogonal)) return;
        var wide = plan.Targets.Where(t => t.Kind == TargetKind.Linear && t.Rank > Math.Min(t.InFeatures, t.OutFeatures)).ToList();
        if (wide.Count == 0) return;
        throw new InvalidLoraConfigException([.. wide.Select(t =>
            $"init_lora_weights '{config.Init}' takes at most the smaller side's {Math.Min(t.InFeatures, t.OutFeatures)} parts from {t.Path} ({t.InFeatures} -> {t.OutFeatures}), and r is {t.Rank}; lower it (rank_pattern), or start with true")]);
    }

    private void CheckNew(string adapter, LoraConfig config)
    {
        CheckName(adapter);
        config.Validate();
        if (MergedOrSuspended.Count > 0) throw new AdapterStateException("Adapters are merged; call Unmerge before adding another one.");
        var biased = _configs.Where(c => c.Value.Bias != LoraBias.None).Select(c => c.Key).ToList();
        if (_configs.Count > 0 && (biased.Count > 0 || config.Bias != LoraBias.None))
        {
            string who = biased.Count > 0 ? biased[0] : adapter;
            throw new InvalidLoraConfigException([$"adapter '{who}' trains the base's biases, which it would share with the other adapter; an adapter with bias must be the only one"]);
        }
        if (_configs.Count > 0 && config.LayerReplication is not null)
            throw new InvalidLoraConfigException(["layer_replication rebuilds the model and can be asked for by the first adapter only"]);
    }

    private void CheckName(string adapter)
    {
        ArgumentNullException.ThrowIfNull(adapter);
        if (adapter.Length == 0) throw new AdapterNameException(adapter, "the name is empty");
        if (adapter.Contains('.', StringComparison.Ordinal)) throw new AdapterNameException(adapter, "a dot would end it in the names of the parameters");
        if (adapter.AsSpan().IndexOfAny('/', '\\') >= 0) throw new AdapterNameException(adapter, "a slash would end it in the path of its folder");
        if (adapter.StartsWith("lora_", StringComparison.Ordinal) || ReservedNames.Contains(adapter))
            throw new AdapterNameException(adapter, "PEFT uses that word in the names of the parameters");
        if (_configs.ContainsKey(adapter)) throw new AdapterNameException(adapter, "the model has an adapter of that name; delete or rename it first");
    }

    /// <summary>Puts the tensors of a planned adapter into the model; if something fails, the model is as before.</summary>
    private void Attach(string adapter, LoraConfig config, AdapterPlan plan, AdapterOptions options, bool filled)
    {
        var before = Hosts.ToHashSet();
        var copies = _beforeInit.Keys.ToHashSet();
        try
        {
            if (config.LayerReplication is { } map) _replication = LayerReplication.Apply(BaseModel, map);
            CheckPlaces(plan);
            foreach (var target in plan.Targets)
            {
                var layer = LayerFor(target);
                if (config.Init.ChangesBase && layer is LoraLinear) KeepBase(layer);
                LoraInitializer.AddAdapter(layer, adapter, config, target, options, filled);
            }
            if (config.EnsureWeightTying) TieFactors(adapter);
            foreach (string path in plan.ModulesToSave) CopyHost(path).Add(adapter);
            if (plan.TiedModule is { } tied) CopyHost(tied).AddTied(adapter, CopyHost(_names.InputEmbedding!));
            foreach (var (path, indices) in plan.Tokens) RowsHost(path).Add(adapter, indices);
            if (plan.TiedTokens is { } tiedRows) RowsHost(tiedRows).AddTied(adapter, RowsHost(_names.InputEmbedding!));
            using (no_grad())
                foreach (var (name, bias) in BiasesOf(adapter, config)) _biasesBefore.Add((name, bias.clone().DetachFromDisposeScope()));
            _configs.Add(adapter, config);
        }
        catch
        {
            foreach (var layer in _beforeInit.Keys.Where(l => !copies.Contains(l)).ToList())
            {
                _beforeInit.Remove(layer, out var copy);
                copy!.Restore();
                copy.Dispose();
            }
            foreach (var host in Hosts.ToList())
            {
                host.Remove(adapter);
                if (!before.Contains(host)) PutBack(host);
            }
            if (config.LayerReplication is not null) UndoReplication();
            throw;
        }
    }

    // The active adapters are trained, unless they were loaded for inference; so are the biases they ask for.
    private void UpdateTrained()
    {
        bool Trained(string adapter) => _context.Active.Contains(adapter) && _trainable.GetValueOrDefault(adapter);
        foreach (var host in Hosts)
            foreach (string adapter in host.AdapterNames)
                foreach (var tensor in host.TensorsOf(adapter)) tensor.Tensor.requires_grad = Trained(adapter);
        foreach (var (adapter, config) in _configs)
            foreach (var (_, bias) in BiasesOf(adapter, config)) bias.requires_grad = Trained(adapter);
    }

    /// <summary>The base's biases that an adapter trains, by PEFT's names.</summary>
    private IEnumerable<(string Name, Parameter Parameter)> BiasesOf(string adapter, LoraConfig config) => config.Bias switch
    {
        LoraBias.All => _names.BaseParameters().Where(p => p.Name == "bias" || p.Name.EndsWith(".bias", StringComparison.Ordinal))
            .Select(p => (ModelNames.Prefix + p.Name, p.Parameter)),
        LoraBias.LoraOnly => Layers.Where(l => l.Adapters.ContainsKey(adapter))
            .SelectMany(l => l.BaseParameters().Where(p => p.Name == "base_layer.bias").Select(p => ($"{ModelNames.Prefix}{l.ModulePath}.{p.Name}", p.Parameter))),
        _ => [],
    };
}
