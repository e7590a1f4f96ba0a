using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Core;

public sealed partial class PeftModel
{
    /// <summary>The name that a stacked adapter's parent gets.</summary>
    public const string ParentAdapter = "parent";

    private readonly Dictionary<string, AdapterLineage> _lineages = [];

    /// <summary>The base's fingerprint: given by <see cref="AdapterOptions.BaseFingerprint"/>, or by a base that knows its own (<see cref="IFingerprintedBase"/>); or null.</summary>
    public string? BaseFingerprint { get; private set; }

    /// <summary>Trains on from a saved adapter.</summary>
    /// <param name="model">The base; with <see cref="TrainOnMode.MergeThenNew"/> it is changed for good.</param>
    /// <param name="folder">The folder of the adapter to go on from.</param>
    /// <param name="mode">How.</param>
    /// <param name="config">The new adapter's settings; null, and not allowed otherwise, with <see cref="TrainOnMode.ContinueSame"/>.</param>
    /// <param name="adapterName">The name of the adapter that is trained.</param>
    /// <param name="options">How adapters are made and loaded.</param>
    /// <returns>The handle of the adapters; disposing it restores the model as far as the mode allows.</returns>
    /// <exception cref="AdapterStateException">Settings are missing or too many.</exception>
    /// <exception cref="WrongBaseException">The adapter was made on another base.</exception>
    public static PeftModel TrainOn(
        nn.Module model, string folder, TrainOnMode mode, LoraConfig? config = null, string adapterName = PeftModelExtensions.DefaultAdapter,
        AdapterOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(folder);
        options ??= new AdapterOptions();
        if (mode == TrainOnMode.ContinueSame != config is null)
            throw new AdapterStateException(config is null ? $"{mode} trains a new adapter; give its settings." : "ContinueSame trains the adapter with its own settings; give none.");
        var peft = new PeftModel(model);
        try
        {
            peft.LoadAdapter(folder, mode == TrainOnMode.ContinueSame ? adapterName : ParentAdapter, options with { Trainable = mode == TrainOnMode.ContinueSame });
            if (mode == TrainOnMode.MergeThenNew)
            {
                string? made = peft.BaseFingerprint;
                peft.MergeAndUnload();
                peft = new PeftModel(model) { BaseFingerprint = made };   // of the base below the merged adapter, which Parent names
            }
            if (config is not null) peft.AddAdapter(adapterName, config, options);
            if (mode == TrainOnMode.StackNew) peft.SetActive(ParentAdapter, adapterName);
            peft._lineages[adapterName] = new AdapterLineage(peft.BaseFingerprint, folder, mode);
            return peft;
        }
        catch
        {
            peft.Dispose();
            throw;
        }
    }

    /// <summary>Where an adapter comes from; null if that is not known.</summary>
    /// <param name="adapter">Its name.</param>
    /// <returns>What its folder says, or how <see cref="TrainOn"/> began.</returns>
    /// <exception cref="AdapterNotFoundException">There is no such adapter.</exception>
    public AdapterLineage? LineageOf(string adapter)
    {
        ConfigOf(adapter);
        return _lineages.GetValueOrDefault(adapter);
    }

    /// <summary>
    /// Saves an adapter that was begun by PiSSA or OLoRA as a plain one of twice the rank, which goes on the unchanged base: A B - A₀ B₀.
    /// </summary>
    /// <param name="folder">The folder; it is made if need be.</param>
    /// <param name="adapter">The adapter's name.</param>
    /// <param name="format">The form of the tensor file.</param>
    /// <exception cref="AdapterNotFoundException">There is no such adapter.</exception>
    /// <exception cref="AdapterStateException">It was not begun by PiSSA or OLoRA, or has more than plain factors.</exception>
    public void SaveAsPlain(string folder, string adapter = PeftModelExtensions.DefaultAdapter, AdapterFileFormat format = AdapterFileFormat.Safetensors)
    {
        Check();
        var config = ConfigOf(adapter);
        if (!config.Init.ChangesBase || config.Init == LoraInit.Loftq)
            throw new AdapterStateException($"Adapter '{adapter}' was begun by init_lora_weights '{config.Init}', which leaves the base as it is or quantises it; use Save.");
        if (config.UseDora)
            throw new AdapterStateException($"Adapter '{adapter}' has use_dora, which has no plain form on the unchanged base; use Save.");
        double factor = config.UseRsLora ? Math.Sqrt(2) : 2;      // keeps the scaling at twice the rank
        var plain = ForFile(adapter) with
        {
            Init = LoraInit.Default,
            Rank = config.Rank * 2,
            Alpha = config.Alpha * factor,
            RankPattern = new OrderedDictionary<string, int>(config.RankPattern.Select(p => KeyValuePair.Create(p.Key, p.Value * 2))),
            AlphaPattern = new OrderedDictionary<string, double>(config.AlphaPattern.Select(p => KeyValuePair.Create(p.Key, p.Value * factor))),
        };
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var state = GetAdapterState(adapter);
        foreach (var tensor in state.Values) tensor.MoveToCurrent();
        foreach (var layer in Layers)
        {
            if (!layer.Adapters.TryGetValue(adapter, out var found)) continue;
            string prefix = $"{ModelNames.Prefix}{layer.ModulePath}.";
            if (found.Initial is not { } initial)      // an embedding starts plain; zeros bring it to the rank of the settings
            {
                foreach (var (key, along) in new[] { ("lora_embedding_A", 0L), ("lora_embedding_B", 1L) })
                    state[prefix + key] = cat([state[prefix + key], zeros_like(state[prefix + key])], along);
                continue;
            }
            var (a, b) = initial;
            state[prefix + "lora_A.weight"] = cat([state[prefix + "lora_A.weight"], a.to(found.A.dtype)], 0);
            state[prefix + "lora_B.weight"] = cat([state[prefix + "lora_B.weight"], -b.to(found.B.dtype)], 1);
        }
        AdapterFolder.Write(folder, plain, state, format);
    }

    private static void CheckBase(string folder, AdapterLineage? lineage, string? fingerprint)
    {
        if (lineage?.BaseFingerprint is { } made && fingerprint is { } present && made != present) throw new WrongBaseException(folder, made, present);
    }

    // What is known of an adapter that came from a folder.
    private void SetLineage(string adapter, AdapterLineage? lineage)
    {
        if (lineage is null) _lineages.Remove(adapter);
        else _lineages[adapter] = lineage;
        if (lineage is { Mode: TrainOnMode.MergeThenNew or TrainOnMode.StackNew })
            _irregularities.Add($"adapter '{adapter}' goes on from the adapter in {lineage.Parent} ({lineage.Mode}), which has to be on the base as well");
    }

    private void WriteLineage(string folder, string adapter)
    {
        var lineage = _lineages.GetValueOrDefault(adapter) ?? new AdapterLineage(BaseFingerprint);
        if (lineage.BaseFingerprint is null && BaseFingerprint is not null) lineage = lineage with { BaseFingerprint = BaseFingerprint };
        if (lineage != new AdapterLineage(null)) lineage.Write(folder);
    }
}
