using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Core;

public sealed partial class PeftModel
{
    private LayerReplication? _replication;

    private static Type LayerType(TargetKind kind) => kind switch
    {
        TargetKind.Linear => typeof(LoraLinear),
        TargetKind.Embedding => typeof(LoraEmbedding),
        _ => typeof(LoraConv2d),
    };

    private LoraLayer LayerFor(PlannedTarget target)
    {
        string path = _names.Inner(target.Path);
        var module = ModuleTree.Find(BaseModel, path)!;
        if (module is LoraLayer existing) return existing;
        LoraLayer layer = target.Kind switch
        {
            TargetKind.Linear => new LoraLinear(target.Path, module, _context),
            TargetKind.Embedding => new LoraEmbedding(target.Path, module, _context),
            _ => new LoraConv2d(target.Path, (Conv2d)module, _context),
        };
        ModuleTree.Replace(BaseModel, path, layer);
        return layer;
    }

    private THost HostAt<THost>(string outerPath, Func<string, nn.Module<Tensor, Tensor>, THost> make)
        where THost : nn.Module, IAdapterHost
    {
        string path = _names.Inner(outerPath);
        var module = ModuleTree.Find(BaseModel, path)!;
        if (module is THost existing) return existing;
        var host = make(outerPath, (nn.Module<Tensor, Tensor>)module);
        ModuleTree.Replace(BaseModel, path, host);
        return host;
    }

    private ModuleToSave CopyHost(string outerPath)
        => HostAt(outerPath, (p, module) => new ModuleToSave(p, module, _context, name => _names.OuterWithin(p, name)));

    private TokenRows RowsHost(string outerPath) => HostAt(outerPath, (p, module) => new TokenRows(p, module, _context));

    /// <summary>The layers whose weight is stored packed and is no parameter, by outer paths.</summary>
    internal IEnumerable<(string Path, FrozenLinear Layer)> PackedLayers()
        => from module in _names.Modules()
           let layer = (module.Module is IAdapterHost host ? host.Original : module.Module) as FrozenLinear
           where layer is not null && ModuleClone.IsPacked(layer)
           select (module.Path, layer);

    private void PutBack(IAdapterHost host)
    {
        ModuleTree.Replace(BaseModel, _names.Inner(host.ModulePath), host.Original);
        host.Release();
    }

    private void UndoReplication()
    {
        _replication?.Undo();
        _replication = null;
    }

    // All places at once, before anything is replaced.
    private void CheckPlaces(AdapterPlan plan)
    {
        foreach (var target in plan.Targets) CheckPlace<LoraLayer>(target.Path, LayerType(target.Kind), "LoRA");
        List<string> copies = [.. plan.ModulesToSave, .. plan.TiedModule is { } tied ? [tied] : Array.Empty<string>()];
        List<string> rows = [.. plan.Tokens.Keys, .. plan.TiedTokens is { } head ? [head] : Array.Empty<string>()];
        foreach (string path in copies) CheckPlace<ModuleToSave>(path, typeof(ModuleToSave), "modules_to_save");
        foreach (string path in rows) CheckPlace<TokenRows>(path, typeof(TokenRows), "trainable_token_indices");
        foreach (string path in rows)
        {
            if (plan.Targets.Any(t => t.Path == path)) throw new UnsupportedTargetException(path, "it cannot have LoRA and trained rows in one adapter; choose one of target_modules and trainable_token_indices.");
            if (copies.Contains(path)) throw new UnsupportedTargetException(path, "it cannot be trained in full and by rows in one adapter; choose one of modules_to_save and trainable_token_indices.");
        }
        foreach (string path in copies)
            if (plan.Targets.Any(t => t.Path == path)) throw new UnsupportedTargetException(path, "it cannot have LoRA and be trained in full in one adapter; choose one of target_modules and modules_to_save.");
    }

    private void CheckPlace<THost>(string outerPath, Type type, string what)
    {
        string path = _names.Inner(outerPath);
        var module = ModuleTree.Find(BaseModel, path);
        if (module is THost) return;
        if (module is IAdapterHost other)
            throw new UnsupportedTargetException(outerPath, $"adapter '{other.AdapterNames.First()}' is there as {other.GetType().Name}, which does not go with {what}; delete it first.");
        if (module is not nn.Module<Tensor, Tensor>)
            throw new UnsupportedTargetException(outerPath, $"{module!.GetType().Name} is no Module<Tensor, Tensor> and cannot be wrapped for {what}; name a module inside it.");
        ModuleTree.CheckReplaceable(BaseModel, path, type);
    }

    // The head uses the embedding's factors, transposed: one set of numbers under two names with a gradient each, as with PEFT. Detached, because
    // libtorch refuses a view whose base was changed in place, which is what an optimizer does.
    private void TieFactors(string adapter)
    {
        if (BaseModel is not IAdapterTargets { TiesEmbeddings: true }) return;
        if (LayerAt(_names.InputEmbedding!) is not { } embedding || LayerAt(_names.OutputHead!) is not { } head) return;
        if (!embedding.Adapters.TryGetValue(adapter, out var source) || !head.Adapters.TryGetValue(adapter, out var own)) return;
        if (own.Magnitude is not null || own.BBias is not null)
            throw new InvalidLoraConfigException(["ensure_weight_tying does not work with use_dora or lora_bias"]);
        var (config, rank, alpha) = (own.Config, own.Rank, own.Alpha);
        head.Remove(adapter);
        using var scope = NewDisposeScope();
        var a = new Parameter(source.B.t().detach().DetachFromDisposeScope(), requires_grad: false);
        var b = new Parameter(source.A.t().detach().DetachFromDisposeScope(), requires_grad: false);
        head.Add(new LoraAdapter(adapter, config, rank, alpha, a, b, null));
        own = head.Adapters[adapter];
        var seen = source.B.Handle;
        own.Retie = source.Retie = () =>
        {
            if (source.B.Handle != seen && Retie(source, head, own)) seen = source.B.Handle;
        };
    }

    // After a move of both, whichever came last; a view of the wrong device or dtype would be no tie.
    private static bool Retie(LoraAdapter source, LoraLayer head, LoraAdapter own)
    {
        if (source.A.dtype != own.B.dtype || source.A.device_type != own.B.device_type || source.A.device_index != own.B.device_index) return false;
        bool trained = own.A.requires_grad;
        using var scope = NewDisposeScope();
        head.Exchange(own.Name, new Parameter(source.B.t().detach().DetachFromDisposeScope(), trained), new Parameter(source.A.t().detach().DetachFromDisposeScope(), trained));
        return true;
    }

    // Neither two full copies of one module can both act, nor two values of one row.
    private void CheckTogether(IReadOnlyList<string> adapters)
    {
        foreach (var rows in Hosts.OfType<TokenRows>())
        {
            var twice = adapters.Distinct().SelectMany(a => rows.TokensOf(a).Select(token => (Token: token, Adapter: a))).GroupBy(t => t.Token).FirstOrDefault(g => g.Count() > 1);
            if (twice is not null)
                throw new AdapterStateException($"Adapters {string.Join(" and ", twice.Select(t => t.Adapter))} both train row {twice.Key} of {rows.ModulePath} and cannot be active together.");
        }
        foreach (var host in Hosts.Where(h => h is ModuleToSave))
        {
            var both = adapters.Where(host.AdapterNames.Contains).ToList();
            if (both.Count > 1) throw new AdapterStateException($"Adapters {string.Join(" and ", both)} both train {host.ModulePath} in full and cannot be active together.");
        }
    }
}
