using Peft.Core;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>Loads what LoRA runs of LLaVA (or of <c>LLaVATrainer</c>) left in their folders, by what a folder holds and never by its name.</summary>
public static class TrainedFolder
{
    private const string PeftPrefix = "base_model.model.";

    /// <summary>
    /// Puts a run's results on its base: <c>non_lora_trainables.bin</c>, where there is one, into the model's own parameters, and the adapter beside
    /// them, frozen and active.
    /// </summary>
    /// <param name="model">The base; it stays the caller's, but its projector has the run's values afterwards.</param>
    /// <param name="folder">The run's folder.</param>
    /// <param name="adapterName">The name the adapter gets.</param>
    /// <param name="options">How the adapter is loaded; null for the defaults.</param>
    /// <returns>The handle of the adapters; disposing it takes them off again, the projector's values stay.</returns>
    /// <exception cref="AdapterFolderException">The folder holds no adapter.</exception>
    /// <exception cref="AdapterTensorsException">The adapter does not fit the model.</exception>
    /// <exception cref="WrongBaseException">It was trained on another base, and <see cref="AdapterOptions.AllowOtherBase"/> is not set; nothing has changed.</exception>
    /// <exception cref="CheckpointMismatchException">The other values do not fit the model; it is as it was, without adapters.</exception>
    public static PeftModel Load(
        LlavaModel model, string folder, string adapterName = PeftModelExtensions.DefaultAdapter, AdapterOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(folder);
        PeftModel? peft = null;
        try
        {
            KeepTower(model, () => peft = PeftModel.Load(model, folder, adapterName, Complete(options)));
            if (!File.Exists(Path.Combine(folder, NonLoraTrainables.FileName))) return peft!;
            using var others = NonLoraTrainables.Load(folder);
            others.ApplyTo(model);
            return peft!;
        }
        catch
        {
            peft?.Dispose();
            throw;
        }
    }

    /// <summary>
    /// Puts the results of several runs on one base, each adapter with its own projector: they are switched together, by <c>SetActive</c>, <c>WithAdapters</c> and
    /// within one batch, and without an adapter the base's own projector counts. The first one is active.
    /// </summary>
    /// <param name="model">The base; it stays the caller's, and its own parameters are not changed.</param>
    /// <param name="folders">The runs' folders by the names that their adapters get.</param>
    /// <param name="options">How the adapters are loaded; null for the defaults.</param>
    /// <returns>The handle of the adapters; disposing it gives the base back.</returns>
    /// <exception cref="AdapterFolderException">There is no folder, one holds no adapter, or values that cannot be switched with it.</exception>
    /// <exception cref="AdapterTensorsException">An adapter or its projector does not fit the model.</exception>
    /// <exception cref="WrongBaseException">One was trained on another base, and <see cref="AdapterOptions.AllowOtherBase"/> is not set.</exception>
    public static PeftModel LoadRuns(LlavaModel model, IEnumerable<KeyValuePair<string, string>> folders, AdapterOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(folders);
        PeftModel? peft = null;
        try
        {
            foreach (var (name, folder) in folders) LoadOrAdd(model, ref peft, folder, name, options);
            return peft ?? throw new AdapterFolderException("The runs", "there is none; give at least one folder with the name that its adapter gets.");
        }
        catch
        {
            peft?.Dispose();
            throw;
        }
    }

    /// <summary>Adds a run's adapter, with its own projector, to those that a base carries. Which one is active stays.</summary>
    /// <param name="peft">The adapters of a <see cref="LlavaModel"/>.</param>
    /// <param name="folder">The run's folder.</param>
    /// <param name="adapterName">The name the adapter gets.</param>
    /// <param name="options">How the adapter is loaded; null for the defaults.</param>
    /// <exception cref="AdapterFolderException">The folder holds no adapter, or values that cannot be switched with it.</exception>
    /// <exception cref="AdapterTensorsException">Adapter or projector do not fit the model; nothing has changed.</exception>
    /// <exception cref="WrongBaseException">It was trained on another base, and <see cref="AdapterOptions.AllowOtherBase"/> is not set; nothing has changed.</exception>
    /// <exception cref="TrainingOptionsException">The adapters are not on a <see cref="LlavaModel"/>.</exception>
    public static void Add(PeftModel peft, string folder, string adapterName, AdapterOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(peft);
        var model = peft.BaseModel as LlavaModel ?? throw new TrainingOptionsException([$"the adapters are on a {peft.BaseModel.GetType().Name}, and runs of LLaVA go on a LlavaModel; call PeftModel.LoadAdapter"]);
        PeftModel? present = peft;
        LoadOrAdd(model, ref present, folder, adapterName, options);
    }

    private static void LoadOrAdd(LlavaModel model, ref PeftModel? peft, string folder, string name, AdapterOptions? options)
    {
        ArgumentNullException.ThrowIfNull(folder);
        using var files = AdapterFolder.Open(folder);
        using var others = File.Exists(Path.Combine(folder, NonLoraTrainables.FileName)) ? NonLoraTrainables.Load(folder) : null;
        string projector = model.ToExternal("model.mm_projector");
        var own = new OrderedDictionary<string, Tensor>();
        foreach (var (key, tensor) in others?.Tensors ?? new Dictionary<string, Tensor>())
            if (key.StartsWith(projector + ".", StringComparison.Ordinal)) own[PeftPrefix + key] = tensor;
        var rest = others?.UnappliedTo(model).Where(n => !own.ContainsKey(PeftPrefix + n)).ToList() ?? [];
        if (rest.Count > 0)
            throw new AdapterFolderException(folder, $"{NonLoraTrainables.FileName} holds {string.Join(", ", rest.Take(3))}{(rest.Count > 3 ? ", …" : "")}, which no adapter can have of its own. "
                + "Load this run alone, by TrainedFolder.Load.");
        var config = own.Count == 0 ? files.Config : files.Config with { ModulesToSave = [.. (files.Config.ModulesToSave ?? []).Append(projector.Split('.')[^1]).Distinct()] };
        using var tensors = new TensorsBeside(files.Tensors, own);
        var adapters = peft;
        KeepTower(model, () =>
        {
            if (adapters is null) adapters = PeftModel.Load(model, config, tensors, name, AdapterLineage.Read(folder), options);
            else adapters.LoadAdapter(config, tensors, name, AdapterLineage.Read(folder), options);
        });
        peft = adapters;
    }

    private static AdapterOptions Complete(AdapterOptions? options) => (options ?? new AdapterOptions()) with { IgnoreCompanions = true };

    /// <summary>
    /// With bias "all" LLaVA's adapter file has the tower's biases too, rounded to the run's dtype. Its builder loads the tower last, from its own folder, so that they
    /// have no effect there, nor here.
    /// </summary>
    private static void KeepTower(LlavaModel model, Action load)
    {
        using var noGrad = no_grad();
        var tower = model.Parameters(ModelPart.VisionTower).Where(p => p.Name.EndsWith(".bias", StringComparison.Ordinal))
            .Select(p => (p.Parameter, Copy: p.Parameter.clone().DetachFromDisposeScope())).ToList();
        try
        {
            load();
            foreach (var (parameter, copy) in tower) parameter.copy_(copy);
        }
        finally
        {
            foreach (var (_, copy) in tower) copy.Dispose();
        }
    }
}
