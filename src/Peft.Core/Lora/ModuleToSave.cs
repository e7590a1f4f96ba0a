using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>
/// A module that is trained in full: the original stays as it is, and each adapter has a copy (PEFT's <c>modules_to_save</c>). Parameters are named
/// <c>original_module.weight</c> and <c>modules_to_save.default.weight</c>; in a file simply <c>weight</c>.
/// </summary>
public sealed class ModuleToSave : nn.Module<Tensor, Tensor>, IAdapterHost
{
    private readonly OrderedDictionary<string, nn.Module<Tensor, Tensor>> _copies = [];
    private readonly nn.Module<Tensor, Tensor> _original;
    private readonly AdapterContext _context;
    private readonly Func<string, string> _outer;

    internal ModuleToSave(string path, nn.Module<Tensor, Tensor> original, AdapterContext context, Func<string, string> outer)
        : base(nameof(ModuleToSave))
    {
        ModulePath = path;
        _outer = outer;
        _original = original;
        _context = context;
        _internal_submodules.Add("original_module", original);
    }

    /// <inheritdoc/>
    public string ModulePath { get; }

    /// <inheritdoc/>
    public nn.Module Original => _original;

    /// <inheritdoc/>
    public IEnumerable<string> AdapterNames => _copies.Keys;

    /// <summary>The copy of the active adapter, or the original if it has none; with adapters by sample, each sample's own.</summary>
    /// <param name="input">What the module takes.</param>
    /// <returns>What the module gives.</returns>
    public override Tensor forward(Tensor input)
    {
        var pass = _context.Current;
        if (!pass.Enabled || pass.Samples is not { } samples) return (ActiveCopy(pass) ?? _original).call(input);
        using var scope = NewDisposeScope();
        var parts = samples.RunsOf(input.shape[0]).Select(run => _copies.GetValueOrDefault(run.Adapter, _original).call(input.narrow(0, run.Start, run.Length))).ToList();
        return (parts.Count == 1 ? parts[0] : cat(parts, 0)).MoveToOuterDisposeScope();
    }

    /// <inheritdoc/>
    public IEnumerable<AdapterTensor> TensorsOf(string adapter)
        => _copies.TryGetValue(adapter, out var copy)
            ? ParametersOf(copy).Select(p => new AdapterTensor($"modules_to_save.{adapter}.{_outer(p.Name)}", _outer(p.Name), p.Parameter))
            : [];

    /// <summary>A copy's buffers that belong into a file (running statistics), by their names there.</summary>
    internal IEnumerable<(string Name, Tensor Buffer)> BuffersOf(string adapter)
        => _copies.TryGetValue(adapter, out var copy) ? BuffersIn(copy).Select(b => (_outer(b.Name), b.Buffer)) : [];

    /// <summary>The buffers of a module that its state dict has.</summary>
    internal static IEnumerable<(string Name, Tensor Buffer)> BuffersIn(nn.Module module) => module.named_buffers(include_nonpersistent: false).Select(b => (b.name, b.buffer));

    /// <inheritdoc/>
    public IEnumerable<(string Name, Parameter Parameter)> BaseParameters()
        => ParametersOf(_original).Select(p => ($"original_module.{_outer(p.Name)}", p.Parameter));

    /// <inheritdoc/>
    public void Remove(string adapter)
    {
        if (Detach(adapter) is { } copy) ModuleClone.DisposeParameters(copy);
    }

    /// <inheritdoc/>
    public void Rename(string from, string to)
    {
        if (!_copies.TryGetValue(from, out var copy)) return;
        int index = _copies.IndexOf(from);
        _copies.Remove(from);
        _copies.Insert(index, to, copy);
        _internal_submodules.Remove(RegistryName(from));
        _internal_submodules.Add(RegistryName(to), copy);
    }

    /// <inheritdoc/>
    public void Release()
    {
        foreach (string adapter in _copies.Keys.ToList()) Remove(adapter);
        _internal_submodules.Clear();
        Dispose();
    }

    internal void Add(string adapter)
    {
        // What uses another module's weight gets one of its own: the copies part.
        var copy = _original is ITiedLinear tied ? Untied(tied) : (nn.Module<Tensor, Tensor>)ModuleClone.Owning(_original, ModulePath);
        Put(adapter, copy);
    }

    /// <summary>The copy of a module that shares the weight of another one's copy.</summary>
    internal void AddTied(string adapter, ModuleToSave source)
    {
        var copy = source._copies[adapter];
        Put(adapter, new SharedLinear(() => LoraEmbedding.TableOf(copy)));
    }

    /// <summary>The parameters of a module, or the one it uses.</summary>
    internal static IEnumerable<(string Name, Parameter Parameter)> ParametersOf(nn.Module module)
        => module is ITiedLinear tied ? [("weight", tied.Weight)] : module.named_parameters().Select(p => (p.name, p.parameter));

    private static DenseFrozenLinear Untied(ITiedLinear tied)
    {
        using var noGrad = no_grad();
        return new DenseFrozenLinear(tied.Weight.clone().DetachFromDisposeScope());
    }

    private void Put(string adapter, nn.Module<Tensor, Tensor> copy)
    {
        _copies.Add(adapter, copy);
        _internal_submodules.Add(RegistryName(adapter), copy);
    }

    /// <summary>Gives a copy away; null if there is none.</summary>
    internal nn.Module<Tensor, Tensor>? Detach(string adapter)
    {
        if (!_copies.Remove(adapter, out var copy)) return null;
        _internal_submodules.Remove(RegistryName(adapter));
        return copy;
    }

    private static string RegistryName(string adapter) => "modules_to_save." + adapter;

    private nn.Module<Tensor, Tensor>? ActiveCopy(AdapterPass pass)
    {
        if (!pass.Enabled) return null;
        foreach (string adapter in pass.Active)
            if (_copies.TryGetValue(adapter, out var copy)) return copy;
        return null;
    }
}
