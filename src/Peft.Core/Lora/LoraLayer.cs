using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>What LoRA on a linear layer, an embedding and a convolution have in common: the adapters, their names, merging.</summary>
public abstract class LoraLayer : nn.Module<Tensor, Tensor>, IAdapterHost
{
    private readonly OrderedDictionary<string, LoraAdapter> _adapters = [];
    private readonly Holder _original;

    private protected LoraLayer(string name, string path, nn.Module original, AdapterContext context)
        : base(name)
    {
        ModulePath = path;
        _original = new Holder(original);
        Context = context;
    }

    /// <inheritdoc/>
    public string ModulePath { get; }

    /// <inheritdoc/>
    public nn.Module Original => _original.Module;

    /// <inheritdoc/>
    public IEnumerable<string> AdapterNames => _adapters.Keys;

    /// <summary>The adapters here, by name.</summary>
    public IReadOnlyDictionary<string, LoraAdapter> Adapters => _adapters;

    /// <summary>The base weight as the peers count it: (out, in), (V, D) for an embedding, (out, in, kh, kw) for a convolution.</summary>
    /// <param name="dtype">The dtype wanted.</param>
    /// <returns>A fresh tensor; the caller disposes it.</returns>
    public abstract Tensor BaseWeight(ScalarType dtype);

    /// <summary>What an adapter adds to the base weight: scaling * B A, rounded to the adapter's dtype.</summary>
    /// <param name="adapter">The adapter's name.</param>
    /// <returns>A fresh tensor of the base weight's shape; the caller disposes it.</returns>
    /// <exception cref="AdapterNotFoundException">It has no tensors here.</exception>
    public Tensor DeltaWeight(string adapter)
    {
        if (!_adapters.TryGetValue(adapter, out var found)) throw new AdapterNotFoundException(adapter, _adapters.Keys.ToList());
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var dtype = found.B.dtype;
        var compute = dtype is ScalarType.Float16 or ScalarType.BFloat16 ? ScalarType.Float32 : dtype;
        return ProductOf(found.A.detach().to(compute), found.B.detach().to(compute)).mul_(found.Scaling).to(dtype).DetachFromDisposeScope();
    }

    /// <inheritdoc/>
    public IEnumerable<AdapterTensor> TensorsOf(string adapter)
    {
        if (!_adapters.TryGetValue(adapter, out var found)) yield break;
        string prefix = FactorPrefix, suffix = FactorSuffix;
        yield return new($"{prefix}A.{adapter}{suffix}", $"{prefix}A{suffix}", found.A);
        yield return new($"{prefix}B.{adapter}{suffix}", $"{prefix}B{suffix}", found.B);
        if (found.BBias is { } bias) yield return new($"lora_B.{adapter}.bias", "lora_B.bias", bias);
        if (found.Magnitude is { } magnitude) yield return new($"lora_magnitude_vector.{adapter}.weight", "lora_magnitude_vector", magnitude);
    }

    /// <inheritdoc/>
    public abstract IEnumerable<(string Name, Parameter Parameter)> BaseParameters();

    /// <inheritdoc/>
    public void Remove(string adapter)
    {
        if (!_adapters.TryGetValue(adapter, out var found)) return;
        foreach (var tensor in TensorsOf(adapter).ToList()) _internal_params.Remove(tensor.MemoryName);
        _adapters.Remove(adapter);
        foreach (var parameter in found.Parameters.ToList()) parameter.Dispose();
        found.Initial?.A.Dispose();
        found.Initial?.B.Dispose();
    }

    /// <inheritdoc/>
    public void Rename(string from, string to)
    {
        if (!_adapters.TryGetValue(from, out var adapter)) return;
        foreach (var tensor in TensorsOf(from).ToList()) _internal_params.Remove(tensor.MemoryName);
        int index = _adapters.IndexOf(from);
        _adapters.Remove(from);
        _adapters.Insert(index, to, adapter);
        adapter.Name = to;
        foreach (var tensor in TensorsOf(to)) register_parameter(tensor.MemoryName, tensor.Tensor);
    }

    /// <inheritdoc/>
    public void Release()
    {
        foreach (string adapter in _adapters.Keys.ToList()) Remove(adapter);
        _internal_submodules.Clear();                        // the base goes back to its owner
        Dispose();
    }

    internal AdapterContext Context { get; }

    internal abstract string FactorPrefix { get; }

    internal abstract string FactorSuffix { get; }

    internal abstract ScalarType BaseDtype { get; }

    internal abstract Device BaseDevice { get; }

    internal abstract Tensor? BaseBias { get; }

    /// <summary>Replaces the base weight, given as <see cref="BaseWeight"/> gives it.</summary>
    internal abstract void OverwriteBase(Tensor weight);

    /// <summary>B A in the base weight's shape.</summary>
    internal abstract Tensor ProductOf(Tensor a, Tensor b);

    /// <summary>DoRA's norms of a weight, in the shape of the magnitude.</summary>
    internal abstract Tensor NormsOf(Tensor weight);

    /// <summary>A factor in the magnitude's shape, made to broadcast over the base weight.</summary>
    internal abstract Tensor OverWeight(Tensor factor);

    /// <summary>Puts other tensors in the place of an adapter's factors, which are freed.</summary>
    internal void Exchange(string name, Parameter a, Parameter b)
    {
        var adapter = _adapters[name];
        var old = (adapter.A, adapter.B);
        (adapter.A, adapter.B) = (a, b);
        foreach (var tensor in TensorsOf(name).Take(2))
        {
            _internal_params.Remove(tensor.MemoryName);
            register_parameter(tensor.MemoryName, tensor.Tensor);
        }
        old.A.Dispose();
        old.B.Dispose();
    }

    /// <summary>Takes the tensors of an adapter over.</summary>
    internal void Add(LoraAdapter adapter)
    {
        _adapters.Add(adapter.Name, adapter);
        foreach (var tensor in TensorsOf(adapter.Name)) register_parameter(tensor.MemoryName, tensor.Tensor);
    }

    /// <summary>Makes an adapter's tensors anew; its place among the others stays.</summary>
    internal void Renew(string adapter, Action make)
    {
        int index = _adapters.IndexOf(adapter);
        Remove(adapter);
        make();
        var made = _adapters[adapter];
        _adapters.Remove(adapter);
        _adapters.Insert(index, adapter, made);
    }

    /// <summary>Adds DoRA's magnitude to an adapter: the norms of the weight with the adapter as it is.</summary>
    internal void AddMagnitude(LoraAdapter adapter, ScalarType dtype)
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var weight = BaseWeight(BaseDtype).MoveToCurrent();
        var norms = NormsOf(weight + DeltaWeight(adapter.Name).MoveToCurrent()).to(BaseDtype).to(dtype);
        adapter.Magnitude = new Parameter(norms.clone().DetachFromDisposeScope());
        register_parameter($"lora_magnitude_vector.{adapter.Name}.weight", adapter.Magnitude);
    }

    /// <summary>The active adapters that have tensors here, in order.</summary>
    internal List<LoraAdapter> ActiveHere(AdapterPass pass)
    {
        var active = new List<LoraAdapter>(pass.Active.Count);
        foreach (string name in pass.Active)
            if (_adapters.TryGetValue(name, out var adapter)) active.Add(adapter);
        return active;
    }

    /// <summary>Whether the base alone acts: adapters switched off, merged, or none active.</summary>
    internal bool IsBaseOnly(AdapterPass pass) => !pass.Enabled || (pass.Samples is null && (Context.Merged.Count > 0 || pass.Active.Count == 0));

    /// <summary>A mask for an adapter's input, or null where nothing is dropped.</summary>
    private protected IDropoutMask? MaskFor(LoraAdapter adapter, Tensor input, AdapterPass pass)
        => training && !pass.IsEvaluation && adapter.Config.Dropout > 0 ? (pass.Dropout ?? Context.Dropout).Draw(ModulePath, input, adapter.Config.Dropout) : null;

    /// <summary>The input in the dtype of an adapter's products.</summary>
    private protected Tensor InputFor(LoraAdapter adapter, Tensor input, AdapterPass pass)
        => PrecisionOf(pass) == AdapterPrecision.BaseDtype ? input : input.to(adapter.A.dtype);

    private protected AdapterPrecision PrecisionOf(AdapterPass pass) => pass.Precision ?? Context.Precision;

    /// <inheritdoc/>
    protected override nn.Module _to(DeviceType deviceType, int deviceIndex, bool non_blocking)
    {
        _deviceIndex = int.MinValue;                         // the factors were made where the base is: TorchSharp must not think that it knows
        return base._to(deviceType, deviceIndex, non_blocking);
    }

    /// <summary>TorchSharp makes new parameters where it moves or casts them; the adapters take them over.</summary>
    protected override void _toEpilog(ScalarType? dtype, Device? device, bool non_blocking)
    {
        base._toEpilog(dtype, device, non_blocking);
        foreach (var (name, adapter) in _adapters)
        {
            adapter.A = get_parameter($"{FactorPrefix}A.{name}{FactorSuffix}")!;
            adapter.B = get_parameter($"{FactorPrefix}B.{name}{FactorSuffix}")!;
            if (adapter.BBias is not null) adapter.BBias = get_parameter($"lora_B.{name}.bias")!;
            if (adapter.Magnitude is not null) adapter.Magnitude = get_parameter($"lora_magnitude_vector.{name}.weight")!;
            if (device is not null && adapter.Initial is { } initial)
                adapter.Initial = (Moved(initial.A, device), Moved(initial.B, device));
            adapter.Retie?.Invoke();
        }
    }

    private static Tensor Moved(Tensor tensor, Device device)
    {
        using var noGrad = no_grad();
        return tensor.to(device, disposeAfter: true).DetachFromDisposeScope();
    }

    // Hides a module from TorchSharp's search for child modules.
    private sealed record Holder(nn.Module Module);
}
