using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Core;

public sealed partial class PeftModel
{
    /// <summary>Freezes a model and loads an adapter folder onto it, which becomes active (PEFT's <c>from_pretrained</c>).</summary>
    /// <param name="model">The model; it stays the caller's.</param>
    /// <param name="folder">The adapter folder.</param>
    /// <param name="adapterName">The name the adapter gets.</param>
    /// <param name="options">How adapters are loaded.</param>
    /// <returns>The handle of the adapters; disposing it restores the model.</returns>
    public static PeftModel Load(
        nn.Module model, string folder, string adapterName = PeftModelExtensions.DefaultAdapter, AdapterOptions? options = null)
    {
        var peft = new PeftModel(model);
        try
        {
            peft.LoadAdapter(folder, adapterName, options);
            return peft;
        }
        catch
        {
            peft.Dispose();
            throw;
        }
    }

    /// <summary>Freezes a model and puts an adapter on it whose tensors are given, which becomes active.</summary>
    /// <param name="model">The model; it stays the caller's.</param>
    /// <param name="config">The adapter's settings.</param>
    /// <param name="tensors">Its tensors by the names of PEFT's file; it stays the caller's.</param>
    /// <param name="adapterName">The name the adapter gets.</param>
    /// <param name="lineage">Where it comes from; null if that is not known.</param>
    /// <param name="options">How adapters are loaded.</param>
    /// <returns>The handle of the adapters; disposing it restores the model.</returns>
    public static PeftModel Load(
        nn.Module model, LoraConfig config, ITensorReader tensors, string adapterName = PeftModelExtensions.DefaultAdapter, AdapterLineage? lineage = null,
        AdapterOptions? options = null)
    {
        var peft = new PeftModel(model);
        try
        {
            peft.LoadAdapter(config, tensors, adapterName, lineage, options);
            return peft;
        }
        catch
        {
            peft.Dispose();
            throw;
        }
    }

    /// <summary>Loads another adapter. The first one becomes active, later ones wait for <see cref="SetActive"/>.</summary>
    /// <param name="folder">The adapter folder.</param>
    /// <param name="adapter">The name it gets.</param>
    /// <param name="options">How it is loaded.</param>
    /// <exception cref="AdapterFolderException">The folder is no adapter folder, or holds values beside the adapter that the model lacks (<see cref="IAdapterCompanions"/>).</exception>
    /// <exception cref="AdapterTensorsException">The file's tensors are not those the model wants; nothing has changed.</exception>
    /// <exception cref="NonFiniteWeightsException">The file holds NaN or infinity; nothing has changed.</exception>
    /// <exception cref="WrongBaseException">It was made on another base; nothing has changed.</exception>
    /// <exception cref="AdapterNameException">An adapter cannot be called that, or one is.</exception>
    /// <exception cref="InvalidLoraConfigException">The settings cannot be, or do not fit the adapters there are.</exception>
    /// <exception cref="TargetNotFoundException">No layer is meant.</exception>
    /// <exception cref="UnsupportedTargetException">A module is meant that cannot carry LoRA.</exception>
    public void LoadAdapter(string folder, string adapter, AdapterOptions? options = null)
    {
        using var files = AdapterFolder.Open(folder);
        var lineage = AdapterLineage.Read(folder);
        if (options is not { AllowOtherBase: true }) CheckBase(folder, lineage, options?.BaseFingerprint ?? BaseFingerprint);
        if (options is not { IgnoreCompanions: true }) CheckCompanions(folder);
        LoadAdapter(files.Config, files.Tensors, adapter, lineage, options);
    }

    /// <summary>Loads another adapter whose tensors are given. The first one becomes active, later ones wait for <see cref="SetActive"/>.</summary>
    /// <param name="config">The adapter's settings.</param>
    /// <param name="tensors">Its tensors by the names of PEFT's file; it stays the caller's.</param>
    /// <param name="adapter">The name it gets.</param>
    /// <param name="lineage">Where it comes from; null if that is not known.</param>
    /// <param name="options">How it is loaded.</param>
    /// <inheritdoc cref="LoadAdapter(string, string, AdapterOptions?)" path="/exception"/>
    public void LoadAdapter(LoraConfig config, ITensorReader tensors, string adapter, AdapterLineage? lineage = null, AdapterOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(config);
        ArgumentNullException.ThrowIfNull(tensors);
        using var change = Change();
        options ??= new AdapterOptions();
        (config, tensors) = AdapterTranslation.Of(BaseModel, config, tensors);
        CheckNew(adapter, config);
        if (!options.AllowOtherBase) CheckBase(tensors.Source, lineage, options.BaseFingerprint ?? BaseFingerprint);
        using var scope = NewDisposeScope();
        var (plan, expected) = PlanAndExpected(config);
        CheckFactorable(plan, config, isNew: false);
        var values = ReadChecked(tensors, expected);
        Attach(adapter, config, plan, options, filled: true);
        Fill(adapter, values);
        _irregularities.AddRange(plan.Unmatched.Select(u => $"adapter '{adapter}': {u} matches nothing"));
        BaseFingerprint = options.BaseFingerprint ?? BaseFingerprint;
        SetLineage(adapter, lineage);
        _trainable[adapter] = options.Trainable;
        if (_configs.Count == 1) _context.Active = [adapter];
        UpdateTrained();
    }

    /// <summary>
    /// Saves adapters as PEFT does: the one called "default" into the folder itself, each other one into a folder of its name below.
    /// </summary>
    /// <param name="folder">The folder; it is made if need be.</param>
    /// <param name="adapters">Which; null for all.</param>
    /// <param name="format">The form of the tensor file.</param>
    /// <param name="gatherer">How parameters become whole; null if they are.</param>
    /// <param name="trainedModules">
    /// Modules of the base that were trained beside the adapters, by the ends of their outer paths: they are written as <c>modules_to_save</c> of each
    /// adapter, so that whoever loads it has them too. Null for none.
    /// </param>
    /// <exception cref="AdapterNotFoundException">There is no such adapter; nothing was written.</exception>
    /// <exception cref="AdapterStateException">There is no such module; nothing was written.</exception>
    /// <exception cref="PatternOrderException">A rank or alpha pattern would read differently from the file; nothing was written.</exception>
    public void Save(
        string folder, IReadOnlyList<string>? adapters = null, AdapterFileFormat format = AdapterFileFormat.Safetensors, IParameterGatherer? gatherer = null,
        IReadOnlyList<string>? trainedModules = null)
    {
        Check();
        var names = adapters ?? AdapterNames;
        var modules = Find(trainedModules ?? []);
        foreach (string adapter in names)
        {
            var matcher = new TargetMatcher(ConfigOf(adapter));
            foreach (var layer in Layers.Where(l => l.Adapters.ContainsKey(adapter))) matcher.CheckSortedOrder(layer.ModulePath);
        }
        foreach (string adapter in names)
        {
            var state = GetAdapterState(adapter, gatherer);
            try
            {
                foreach (var (name, parameter) in modules) state[name] = (gatherer ?? WholeParameters.Instance).Gather(name, parameter);
                string path = adapter == PeftModelExtensions.DefaultAdapter ? folder : Path.Combine(folder, adapter);
                var config = ForFile(adapter);
                if (trainedModules is { Count: > 0 }) config = config with { ModulesToSave = [.. (config.ModulesToSave ?? []).Union(trainedModules)] };
                AdapterFolder.Write(path, config, state, format);
                WriteLineage(path, adapter);
            }
            finally
            {
                foreach (var tensor in state.Values) tensor.Dispose();
            }
        }
    }

    /// <summary>An adapter's tensors by the names of its file.</summary>
    /// <param name="adapter">Its name.</param>
    /// <param name="gatherer">How parameters become whole; null if they are.</param>
    /// <returns>Fresh tensors on the CPU; the caller disposes them.</returns>
    /// <exception cref="AdapterNotFoundException">There is no such adapter.</exception>
    public OrderedDictionary<string, Tensor> GetAdapterState(string adapter, IParameterGatherer? gatherer = null)
    {
        Check();
        var config = ConfigOf(adapter);
        gatherer ??= WholeParameters.Instance;
        var state = new OrderedDictionary<string, Tensor>();
        // A merged base is not what the adapter belongs on: the file gets it as it was.
        var before = BeforeMerge();
        foreach (var host in Hosts)
        {
            string prefix = $"{ModelNames.Prefix}{host.ModulePath}.";
            foreach (var tensor in host.TensorsOf(adapter)) state[prefix + tensor.DiskName] = gatherer.Gather(prefix + tensor.MemoryName, tensor.Tensor);
            if (host is ModuleToSave module)
                foreach (var (name, buffer) in module.BuffersOf(adapter)) state[prefix + name] = buffer.cpu().clone().DetachFromDisposeScope();
            if (host is not LoraLayer layer || !layer.Adapters.ContainsKey(adapter) || !AdapterKeys.SavesBase(config, host.ModulePath)) continue;
            foreach (var (name, parameter) in host.BaseParameters().Where(p => p.Name == "base_layer.weight"))
                state[prefix + name] = Unmerged(prefix + name, parameter, before, gatherer);
        }
        foreach (var (name, bias) in BiasesOf(adapter, config)) state[name] = Unmerged(name, bias, before, gatherer);
        return state;
    }

    /// <summary>The parameters of modules of the base, by the names that an adapter's file has for them.</summary>
    private List<(string Name, Parameter Parameter)> Find(IReadOnlyList<string> modules)
    {
        var found = new List<(string, Parameter)>();
        var all = _names.Modules().ToList();
        foreach (string wanted in modules)
        {
            var matches = all.Where(m => m.Path == wanted || m.Path.EndsWith("." + wanted, StringComparison.Ordinal)).ToList();
            if (matches.Count == 0) throw new AdapterStateException($"There is no module '{wanted}' to save with the adapters; give the end of its path in the model.");
            // One that is an adapter's own already (modules_to_save) is written with it.
            foreach (var (path, module) in matches.Where(m => m.Module is not IAdapterHost))
                found.AddRange(ModuleToSave.ParametersOf(module).Select(p => ($"{ModelNames.Prefix}{path}.{_names.OuterWithin(path, p.Name)}", p.Parameter)));
        }
        return found;
    }

    private static Tensor Unmerged(string name, Parameter parameter, Dictionary<IntPtr, Tensor> before, IParameterGatherer gatherer)
    {
        if (!before.TryGetValue(parameter.Handle, out var content)) return gatherer.Gather(name, parameter);
        using var original = new Parameter(content.clone().DetachFromDisposeScope(), requires_grad: false);
        return gatherer.Gather(name, original);
    }

    // As PEFT's save_pretrained: for inference, and "all-linear" resolved to the layers' names.
    private LoraConfig ForFile(string adapter)
    {
        var config = ConfigOf(adapter) with { InferenceMode = true };
        return config.TargetModules is { IsAllLinear: true }
            ? config with { TargetModules = TargetModules.Names([.. Layers.Where(l => l.Adapters.ContainsKey(adapter)).Select(l => l.ModulePath)]) }
            : config;
    }

    private void CheckCompanions(string folder)
    {
        if (BaseModel is IAdapterCompanions model && model.Unapplied(folder) is { } problem) throw new AdapterFolderException(folder, problem);
    }

    private (AdapterPlan Plan, List<AdapterKeys.Expected> Expected) PlanAndExpected(LoraConfig config)
    {
        config.Validate();
        var replication = config.LayerReplication is { } map ? LayerReplication.Apply(BaseModel, map) : null;
        try
        {
            var plan = AdapterPlan.ForPresent(BaseModel, config);
            return (plan, ExpectedOf(plan, config));
        }
        finally
        {
            replication?.Undo();
        }
    }

    private List<AdapterKeys.Expected> ExpectedOf(AdapterPlan plan, LoraConfig config)
    {
        var modules = _names.Modules().ToDictionary(m => m.Path, m => (m.Module as IAdapterHost)?.Original ?? m.Module);
        var expected = plan.Targets.SelectMany(t => AdapterKeys.ForTarget(t, config, modules[t.Path])).ToList();
        var saved = plan.ModulesToSave.Concat(plan.TiedModule is { } head ? [head] : []).ToList();
        foreach (string path in saved)
        {
            string Key(string name) => $"{ModelNames.Prefix}{path}.{_names.OuterWithin(path, name)}";
            expected.AddRange(ModuleToSave.ParametersOf(modules[path]).Select(p => new AdapterKeys.Expected(Key(p.Name), p.Parameter.shape)));
            expected.AddRange(ModuleToSave.BuffersIn(modules[path]).Select(b => new AdapterKeys.Expected(Key(b.Name), b.Buffer.shape, IsWhole: !is_floating_point(b.Buffer))));
        }
        foreach (var (path, indices) in plan.Tokens)
            expected.Add(new($"{ModelNames.Prefix}{path}.token_adapter.trainable_tokens_delta", [indices.Count, LoraEmbedding.TableOf(modules[path]).shape[1]]));
        if (config.Bias == LoraBias.None) return expected;
        var targets = plan.Targets.Select(t => t.Path).ToHashSet();
        foreach (var (name, parameter) in _names.BaseParameters())
        {
            bool isBias = name == "bias" || name.EndsWith(".bias", StringComparison.Ordinal);
            string owner = isBias && name.Length > 5 ? name[..^5] : "";
            if (owner.EndsWith(".base_layer", StringComparison.Ordinal)) owner = owner[..^".base_layer".Length];
            bool adapted = targets.Contains(owner);
            if (!isBias || (config.Bias != LoraBias.All && !adapted)) continue;
            // A module trained in full has the bias in its copy. PEFT writes that of the original beside it, and the copy's under a second name.
            if (saved.FirstOrDefault(p => owner == p || owner.StartsWith(p + ".", StringComparison.Ordinal)) is { } copied)
            {
                string inside = name[(copied.Length + 1)..];
                foreach (string holder in new[] { "original_module", "modules_to_save" })
                    expected.Add(new($"{ModelNames.Prefix}{copied}.{holder}.{inside}", parameter.shape, Required: false));
            }
            else expected.Add(new(adapted ? $"{ModelNames.Prefix}{owner}.base_layer.bias" : ModelNames.Prefix + name, parameter.shape));
        }
        return expected;
    }

    private static Dictionary<string, Tensor> ReadChecked(ITensorReader reader, List<AdapterKeys.Expected> expected)
    {
        var faults = AdapterKeys.Faults(reader.Entries, expected);
        if (faults.Count > 0) throw new AdapterTensorsException(reader.Source, faults);
        var tensors = reader.Entries.Keys.ToDictionary(k => k, k => reader.Load(k).MoveToCurrent());
        var broken = tensors.Where(t => !t.Value.isfinite().all().ToBoolean()).Select(t => t.Key).ToList();
        if (broken.Count > 0) throw new NonFiniteWeightsException(broken, reader.Source);
        return tensors;
    }

    private void Fill(string adapter, Dictionary<string, Tensor> tensors)
    {
        using var noGrad = no_grad();
        foreach (var host in Hosts)
        {
            string prefix = $"{ModelNames.Prefix}{host.ModulePath}.";
            foreach (var tensor in host.TensorsOf(adapter)) tensor.Tensor.copy_(tensors[prefix + tensor.DiskName]);
            if (host is ModuleToSave module)
                foreach (var (name, buffer) in module.BuffersOf(adapter)) buffer.copy_(tensors[prefix + name]);
            if (host is LoraLayer layer && layer.Adapters.ContainsKey(adapter) && tensors.TryGetValue(prefix + "base_layer.weight", out var weight))
                FillBase(adapter, layer, weight);
        }
        foreach (var (name, bias) in BiasesOf(adapter, ConfigOf(adapter)))
            if (tensors.TryGetValue(name, out var values)) bias.copy_(values);      // only that of an original beside its copy may be missing
    }

    // An embedding's base weight comes with the adapter; PEFT puts it into the model.
    private void FillBase(string adapter, LoraLayer layer, Tensor weight)
    {
        using var scope = NewDisposeScope();
        var present = layer.BaseWeight(layer.BaseDtype).MoveToCurrent();
        var incoming = weight.to(layer.BaseDtype);
        if (present.eq(incoming).all().ToBoolean()) return;
        KeepBase(layer);
        layer.OverwriteBase(incoming);
        _irregularities.Add($"adapter '{adapter}': its file replaced the base weight of {layer.ModulePath}");
    }
}
