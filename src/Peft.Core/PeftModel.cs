using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>
/// The adapters of a model: made, loaded, switched, merged, saved. The model itself goes on being called as before; its adapted layers ask
/// this object which adapters act.
/// </summary>
/// <remarks>
/// The adapters belong to the call: what <see cref="WithAdapters"/>, <see cref="WithAdaptersBySample"/> and <see cref="WithoutAdapter"/> choose holds for the
/// call that opens the scope and for what it calls and starts, so that several threads may run passes with different adapters at the same time.
/// <see cref="SetActive"/> sets what passes have that choose nothing. What changes adapters or weights (adding, deleting, merging, swapping, unloading) waits
/// for the passes of an <see cref="IAdapterRouted"/> model that run on other threads, and is refused within one; with other models the caller sees to it.
/// Disposing it unloads all adapters; the model stays the caller's.
/// </remarks>
public sealed partial class PeftModel : IDisposable
{
    private readonly AdapterContext _context;
    private readonly OrderedDictionary<string, LoraConfig> _configs = [];
    private readonly Dictionary<string, bool> _trainable = [];
    private readonly ModelNames _names;
    private readonly Dictionary<string, bool> _found = [];      // by name: a move makes new parameters
    private bool _disposed;

    /// <summary>Takes a model without adapters and freezes it.</summary>
    /// <param name="model">The model.</param>
    /// <exception cref="AdapterStateException">The model carries adapters already.</exception>
    internal PeftModel(nn.Module model)
    {
        ArgumentNullException.ThrowIfNull(model);
        BaseModel = model;
        _context = new AdapterContext { Present = () => [.. _configs.Keys] };
        BaseFingerprint = (model as IFingerprintedBase)?.BaseFingerprint;
        _names = new ModelNames(model);
        if (_names.Hosts().FirstOrDefault() is { } host)
            throw new AdapterStateException($"The model carries adapters already ({string.Join(", ", host.AdapterNames)} at {host.ModulePath}). Add others by AddAdapter or LoadAdapter of the PeftModel that is there, or unload them first (dispose it).");
        foreach (var (name, parameter) in model.named_parameters())
        {
            _found[name] = parameter.requires_grad;
            parameter.requires_grad = false;
        }
        if (model is IAdapterRouted routed) routed.AdapterRouting = new AdapterRouting(_context);
    }

    /// <summary>The model that carries the adapters.</summary>
    public nn.Module BaseModel { get; }

    /// <summary>All adapters, in the order in which they came.</summary>
    public IReadOnlyList<string> AdapterNames => [.. _configs.Keys];

    /// <summary>The adapters that are active in the present call, in the order in which they are added up.</summary>
    public IReadOnlyList<string> ActiveAdapters => _context.Current.Active;

    /// <summary>The adapters that are merged into the base weights at present.</summary>
    public IReadOnlyList<string> MergedAdapters => [.. _context.Merged];

    /// <summary>The dtype of the adapters' products.</summary>
    public AdapterPrecision Precision
    {
        get => _context.Precision;
        set => _context.Precision = value;
    }

    /// <summary>Where dropout masks come from.</summary>
    public IDropoutSource Dropout
    {
        get => _context.Dropout;
        set => _context.Dropout = value ?? throw new ArgumentNullException(nameof(value));
    }

    /// <summary>What was noticed and is no fault: entries of settings that match nothing, base weights that an adapter file replaced.</summary>
    public IReadOnlyList<string> Irregularities => _irregularities;

    /// <summary>The modules that carry adapters, in the model's order.</summary>
    public IEnumerable<IAdapterHost> Hosts => _names.Hosts();

    /// <summary>The layers that carry LoRA, in the model's order.</summary>
    public IEnumerable<LoraLayer> Layers => Hosts.OfType<LoraLayer>();

    /// <summary>What <see cref="PeftModelExtensions.GetPeftModel"/> or <see cref="AddAdapter"/> would do.</summary>
    /// <param name="model">The model; it is not changed.</param>
    /// <param name="config">The adapter's settings.</param>
    /// <returns>The plan.</returns>
    public static AdapterPlan Preview(nn.Module model, LoraConfig config) => AdapterPlan.For(model, config);

    /// <summary>An adapter's settings.</summary>
    /// <param name="adapter">The adapter's name.</param>
    /// <returns>The settings.</returns>
    /// <exception cref="AdapterNotFoundException">There is no such adapter.</exception>
    public LoraConfig ConfigOf(string adapter)
        => _configs.TryGetValue(adapter, out var config) ? config : throw new AdapterNotFoundException(adapter, _configs.Keys.ToList());

    /// <summary>The layer at an outer path, or null.</summary>
    /// <param name="path">The outer path.</param>
    /// <returns>The layer; null if no LoRA layer stands there.</returns>
    public LoraLayer? LayerAt(string path) => Layers.FirstOrDefault(l => l.ModulePath == path);

    /// <summary>
    /// All parameters, base and adapters, by the names PEFT gives them:
    /// <c>base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight</c>.
    /// </summary>
    /// <param name="keepShared">Whether a tensor that two modules share comes under each of its names (as in a state dict) or once.</param>
    /// <returns>Name and parameter, in the model's order.</returns>
    public IEnumerable<(string Name, Parameter Parameter)> NamedParameters(bool keepShared = false)
        => _names.AllParameters(keepShared).Select(p => (ModelNames.Prefix + p.Name, p.Parameter));

    /// <summary>The parameters that are trained.</summary>
    /// <returns>Name and parameter.</returns>
    public IEnumerable<(string Name, Parameter Parameter)> TrainableParameters() => NamedParameters().Where(p => p.Parameter.requires_grad);

    /// <summary>How many parameters and bytes are trained, frozen and stored, by component.</summary>
    /// <returns>The report.</returns>
    public ParameterReport Report() => ParameterReport.Of(this);

    /// <summary>Unloads all adapters: see <see cref="Unload"/>.</summary>
    public void Dispose()
    {
        if (_disposed) return;
        Unload();
    }

    private void Check() => ObjectDisposedException.ThrowIf(_disposed, this);
}
