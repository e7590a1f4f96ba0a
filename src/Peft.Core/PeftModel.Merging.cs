using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Core;

public sealed partial class PeftModel
{
    // The base weights as they were before a merge or an init changed them.
    private readonly OrderedDictionary<LoraLayer, BaseCopy> _beforeMerge = [];
    private readonly OrderedDictionary<LoraLayer, BaseCopy> _beforeInit = [];
    private readonly List<(string Name, Tensor Copy)> _biasesBefore = [];
    private bool _safelyMerged;

    /// <summary>Adds adapters to the base weights, so that they cost nothing more; <see cref="Unmerge"/> takes them out bit for bit.</summary>
    /// <param name="adapters">Their names in order, or null for the active ones.</param>
    /// <param name="safe">
    /// Round each delta to the weight's dtype before it is added, as PEFT's <c>safe_merge</c> does; otherwise the sum alone is rounded. The
    /// two differ for float32 adapters on a half-precision base.
    /// </param>
    /// <returns>What is merged where now.</returns>
    /// <exception cref="AdapterNotFoundException">There is no such adapter.</exception>
    /// <exception cref="AdapterStateException">One of them is merged already, or B has a bias and the base has none.</exception>
    /// <exception cref="NonFiniteWeightsException">The merged weights would hold NaN or infinity; nothing has changed.</exception>
    public MergeReport Merge(IReadOnlyList<string>? adapters = null, bool safe = true)
    {
        using var change = Change();
        CheckNotChosen(nameof(Merge));
        return MergeInto(CheckMerge(adapters), safe);
    }

    /// <summary>Takes all merged adapters out of the base weights, which are then bit for bit as before.</summary>
    /// <exception cref="AdapterStateException">Nothing is merged.</exception>
    public void Unmerge()
    {
        using var change = Change();
        if (_context.Merged.Count == 0) throw new AdapterStateException("No adapter is merged, so there is nothing to take out.");
        TakeOut();
    }

    private void TakeOut()
    {
        // The other way round than they were merged: layers may share a weight.
        foreach (var rows in Hosts.OfType<TokenRows>().Reverse()) rows.EndMerge(restore: true);
        Restore(_beforeMerge);
        _context.Merged.Clear();
    }

    /// <summary>Adds adapters to the base weights for good and removes all adapters; this object is of no use afterwards.</summary>
    /// <param name="adapters">Their names in order, or null for the active ones. Those merged already stay merged.</param>
    /// <param name="safe">As in <see cref="Merge"/>.</param>
    /// <returns>What was merged where.</returns>
    /// <exception cref="AdapterNotFoundException">There is no such adapter.</exception>
    /// <exception cref="AdapterStateException">One of them is merged already, or B has a bias and the base has none, or layers share weights.</exception>
    /// <exception cref="NonFiniteWeightsException">The merged weights would hold NaN or infinity; nothing has changed.</exception>
    public MergeReport MergeAndUnload(IReadOnlyList<string>? adapters = null, bool safe = true)
    {
        using var change = Change();
        CheckNotChosen(nameof(MergeAndUnload));
        var more = CheckMerge(adapters);
        var report = _context.Merged.Count > 0 || SharesWeights(more) ? MergeInto(more, safe) : MergeForGood(more, safe);
        foreach (var rows in Hosts.OfType<TokenRows>()) rows.EndMerge(restore: false);
        foreach (var module in Hosts.OfType<ModuleToSave>().ToList()) KeepCopy(module, report.Adapters);
        Forget(_beforeMerge);
        Forget(_beforeInit);
        foreach (var (_, copy) in _biasesBefore) copy.Dispose();
        _biasesBefore.Clear();
        _context.Merged.Clear();
        Unload();
        (BaseModel as IFingerprintedBase)?.ForgetFingerprint();
        return report;
    }

    /// <summary>Removes all adapters; the base is module for module and bit for bit as it was. This object is of no use afterwards.</summary>
    public void Unload()
    {
        using var change = Change();
        if (_context.Merged.Count > 0) TakeOut();
        Restore(_beforeInit);
        RestoreBiases();
        foreach (var host in Hosts.ToList()) PutBack(host);
        UndoReplication();
        foreach (var (name, parameter) in BaseModel.named_parameters())
            if (_found.TryGetValue(name, out bool trained)) parameter.requires_grad = trained;
        if (BaseModel is IAdapterRouted routed) routed.AdapterRouting = null;
        _configs.Clear();
        _context.NamesChanged();
        _context.Active = [];
        _disposed = true;
    }

    private List<string> CheckMerge(IReadOnlyList<string>? adapters)
    {
        var names = (adapters ?? _context.Active).ToList();
        if (_context.Suspended.Count > 0)
            throw new AdapterStateException($"Adapters {string.Join(", ", _context.Suspended)} are merged, and taken out until WithoutAdapter ends; merge after it.");
        if (_replication is not null)
            throw new AdapterStateException("The layers were replicated (layer_replication) and share weights, so that a merge would change all copies at once; use the adapter unmerged.");
        foreach (string name in names)
        {
            ConfigOf(name);
            if (_context.Merged.Contains(name)) throw new AdapterStateException($"Adapter '{name}' is merged already; merging it again would double it. Call Unmerge first.");
        }
        if (names.Distinct().Count() != names.Count) throw new AdapterStateException($"An adapter can be merged only once: {string.Join(", ", names)}.");
        CheckTogether([.. _context.Merged, .. names]);
        var broken = new List<string>();
        foreach (var layer in Layers)
        {
            foreach (string name in names)
            {
                if (!layer.Adapters.TryGetValue(name, out var adapter)) continue;
                if (layer is LoraConv2d { IsGrouped: true })
                    throw new AdapterStateException($"Adapter '{name}' is on {layer.ModulePath}, a convolution with groups: what it adds is no weight of the groups' shape, so it cannot be merged; use the adapter unmerged.");
                if (adapter.BBias is not null && layer.BaseBias is null)
                    throw new AdapterStateException($"Adapter '{name}' has a bias of its own at {layer.ModulePath} (lora_bias), and the base layer has none to add it to; use the adapter unmerged.");
                if (!adapter.IsFinite()) broken.Add($"{layer.ModulePath} of adapter '{name}'");
            }
        }
        if (broken.Count > 0) throw new NonFiniteWeightsException(broken, "Merge");
        return names;
    }

    // Always from the unmerged base, with what is merged already before the rest: DoRA's norms are those of the unmerged weight.
    private MergeReport MergeInto(List<string> more, bool safe)
    {
        List<string> merged = [.. _context.Merged], names = [.. merged, .. more];
        if (merged.Count > 0) TakeOut();
        var layers = new List<MergedLayer>();
        try
        {
            foreach (var layer in Layers)
            {
                if (!names.Any(layer.Adapters.ContainsKey)) continue;
                _beforeMerge[layer] = new BaseCopy(layer);
                layers.Add(LoraMerge.Merge(layer, names, safe));
            }
        }
        catch
        {
            Restore(_beforeMerge);
            if (merged.Count > 0) MergeInto(merged, _safelyMerged);
            throw;
        }
        foreach (var rows in Hosts.OfType<TokenRows>()) rows.Merge(names, keep: true);
        _context.Merged.AddRange(names);
        _safelyMerged = safe;
        return new MergeReport(names, layers);
    }

    // Two sums in one weight: the second is known only when the first is there.
    private bool SharesWeights(List<string> names)
    {
        var weights = Layers.Where(layer => names.Any(layer.Adapters.ContainsKey))
            .SelectMany(layer => layer.BaseParameters().Where(p => p.Name == "base_layer.weight").Select(p => p.Parameter.Handle)).ToList();
        return weights.Distinct().Count() != weights.Count;
    }

    /// <summary>What the base's parameters were before the merge, by their handles; empty if nothing is merged.</summary>
    private Dictionary<IntPtr, Tensor> BeforeMerge()
    {
        var before = new Dictionary<IntPtr, Tensor>();
        foreach (var copy in _beforeMerge.Values)
            foreach (var (parameter, content) in copy.Contents()) before.TryAdd(parameter.Handle, content);
        foreach (var rows in Hosts.OfType<TokenRows>())
            if (rows.BeforeMerge is { } kept) before.TryAdd(kept.Table.Handle, kept.Content);
        return before;
    }

    // Nothing is taken out again, so no weight is kept: all sums are known to be finite before the first one is stored.
    private MergeReport MergeForGood(List<string> names, bool safe)
    {
        var layers = Layers.Where(layer => names.Any(layer.Adapters.ContainsKey)).ToList();
        var broken = layers.Where(layer => !LoraMerge.IsFinite(layer, names, safe)).Select(layer => layer.ModulePath).ToList();
        if (broken.Count > 0) throw new NonFiniteWeightsException(broken, "Merge");
        var merged = layers.Select(layer => LoraMerge.Merge(layer, names, safe)).ToList();
        foreach (var rows in Hosts.OfType<TokenRows>()) rows.Merge(names, keep: false);
        return new MergeReport(names, merged);
    }

    // A module trained in full stays in its copy; the original is its owner's again.
    private void KeepCopy(ModuleToSave host, IReadOnlyList<string> adapters)
    {
        if (adapters.Where(host.AdapterNames.Contains).Select(host.Detach).FirstOrDefault() is not { } copy) return;
        ModuleTree.Replace(BaseModel, _names.Inner(host.ModulePath), copy);
        host.Release();
    }

    // The biases that an adapter trains are the base's own.
    private void RestoreBiases()
    {
        using var noGrad = no_grad();
        if (_biasesBefore.Count == 0) return;
        var present = new Dictionary<string, Parameter>();
        foreach (var (name, parameter) in _names.BaseParameters(keepShared: true)) present[ModelNames.Prefix + name] = parameter;
        foreach (var (name, copy) in _biasesBefore)
        {
            present[name].copy_(copy);
            copy.Dispose();
        }
        _biasesBefore.Clear();
    }

    private void KeepBase(LoraLayer layer)
    {
        if (!_beforeInit.ContainsKey(layer)) _beforeInit[layer] = new BaseCopy(layer);
    }

    private static void Restore(OrderedDictionary<LoraLayer, BaseCopy> copies)
    {
        foreach (var copy in copies.Values.Reverse()) copy.Restore();
        Forget(copies);
    }

    private static void Forget(OrderedDictionary<LoraLayer, BaseCopy> copies)
    {
        foreach (var copy in copies.Values) copy.Dispose();
        copies.Clear();
    }
}
