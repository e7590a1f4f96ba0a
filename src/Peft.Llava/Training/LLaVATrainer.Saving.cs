using Peft.Core;
using static TorchSharp.torch;

namespace Peft.Llava;

public sealed partial class LLaVATrainer
{
    private const string PeftPrefix = "base_model.model.";

    /// <summary>
    /// Writes what was trained as LLaVA does. Adapters: <c>adapter_model.safetensors</c>, <c>adapter_config.json</c>,
    /// <c>non_lora_trainables.bin</c>. The projector alone: <c>mm_projector.bin</c>. A whole model: <c>model.safetensors</c>, in several files beyond <see cref="TrainingOptions.MaxShardBytes"/>.
    /// Each with <c>config.json</c>, <c>trainer_state.json</c>, the base's settings of generation and pictures, and the tokenizer's files, which know the tokens that
    /// were added (<see cref="ITrainingData.Tokenizer"/>). On a base in a llava-hf layout the projector goes into the adapter as <c>modules_to_save</c>, as PEFT
    /// loads it, and a whole model has the names of the published checkpoints. Of several processes only the first one writes.
    /// </summary>
    /// <param name="folder">The folder; null for <see cref="TrainingOptions.OutputDirectory"/>. Made if need be.</param>
    /// <exception cref="FileWriteException">The operating system refused; earlier files are as they were, and the weights are still in memory.</exception>
    /// <exception cref="TokenizerFileException">The files that the tokenizer was read from are no longer there.</exception>
    /// <exception cref="CheckpointException">What was written does not read back as it is in memory, or is of no use; the weights are still in memory.</exception>
    public void SaveModel(string? folder = null)
    {
        if (Saves) Save(folder ?? Options.OutputDirectory, useCache: true, checkpointStep: 0);
    }

    private bool SavesWhole => _trained.Peft is null && SavedConfig.IsWhole(Options);

    private void Save(string folder, bool useCache, int checkpointStep)
    {
        OutputFolder.Create(folder);
        if (_trained.Peft is { } peft) SaveAdapter(peft, folder);
        else if (SavesWhole) SaveWhole(folder);
        else SaveProjector(folder);
        if (_data.Tokenizer is { } tokenizer) TokenizerFiles.Write(tokenizer, folder, MaxLength, Model.Config);
        else if (Model.Config.Folder is { } source) TokenizerFiles.Copy(source, folder, MaxLength, Model.Config);
        CompanionFiles.Write(Model.Config, Model.Config.Folder, folder);
        if (SavesWhole) VisionTowerFiles.Write(Model, Model.Config.Folder, folder);
        AtomicFile.WriteText(Path.Combine(folder, "config.json"), SavedConfig.Write(_trained, Options, useCache));
        AtomicFile.WriteText(Path.Combine(folder, "trainer_state.json"), TrainerStateFile.Write(_history, _evaluator, BestKept(checkpointStep), Options, _plan));
        Verify(folder);
    }

    /// <summary>The best evaluation whose weights are in a checkpoint, that of a step being written at present included, and the checkpoint.</summary>
    private (EvaluationReport Report, string Folder)? BestKept(int beingWritten)
    {
        (EvaluationReport Report, string Folder)? best = null;
        foreach (var report in _evaluator.Reports.Where(r => double.IsFinite(r.Metric)))
        {
            if (best is { } b && !_evaluator.IsBetter(report.Metric, b.Report.Metric)) continue;
            string name = TrainingCheckpoint.NameOf(report.Step);
            string folder = Path.GetFileName(_bestFolder) == name ? _bestFolder! : Path.Combine(Options.OutputDirectory, name);
            if (report.Step == beingWritten || (folder == _bestFolder ? Directory.Exists(folder) : TrainingCheckpoint.RunOf(folder) == RunId)) best = (report, folder);
        }
        return best;
    }

    /// <summary>Reads back what was written: names, shapes, and every value, which has to be finite and the model's own. A whole model has to load.</summary>
    private void Verify(string folder)
    {
        using var weights = new SavedWeights(folder, _trained);
        weights.Verify([.. SavesWhole ? _trained.Parameters : _trained.Trained], _moved);
        if (SavesWhole && Model.Config.IsHuggingFace) LlavaModel.Load(folder).Dispose();
    }

    private void SaveAdapter(PeftModel peft, string folder)
    {
        var format = Options.SaveAdapterAsPickle ? AdapterFileFormat.Bin : AdapterFileFormat.Safetensors;
        var projector = Model.Parameters(ModelPart.Projector).Where(p => p.Parameter.requires_grad && !IsAdapter(p.Name)).Select(p => p.Parameter.Handle).ToHashSet();
        // What PEFT puts into its own file (modules_to_save) is not written twice. A reader of llava-hf adapters knows no other file.
        var written = peft.Hosts.SelectMany(h => h.AdapterNames.SelectMany(h.TensorsOf)).Select(t => t.Tensor.Handle).ToHashSet();
        bool within = projector.Count > 0 && Model.Config.IsHuggingFace && peft.ActiveAdapters.Count > 0;
        if (within) written.UnionWith(projector);
        if (peft.AdapterNames.Except(peft.ActiveAdapters).ToList() is { Count: > 0 } others) peft.Save(folder, others, format);
        peft.Save(folder, peft.ActiveAdapters, format, trainedModules: within ? ["multi_modal_projector"] : null);
        var state = PeftState.GetNonLoraTrainables(peft.NamedParameters().Where(p => !written.Contains(p.Parameter.Handle)));
        // Frozen, but in no file of the base: LLaVA leaves them out, and its loader then draws them.
        foreach (var (name, parameter) in peft.NamedParameters().Where(p => !written.Contains(p.Parameter.Handle)))
            if (!state.ContainsKey(name) && Model.BesideBase.HasFlag(LlavaModel.PartOf(name[PeftPrefix.Length..]))) state[name] = parameter.detach().cpu().DetachFromDisposeScope();
        string path = Path.Combine(folder, NonLoraTrainables.FileName);
        if (state.Count > 0 || !within) Write(state, () => PickleWriter.Write(path, state));
        else File.Delete(path);     // of an earlier save, and read by those who look for one
    }

    private static bool IsAdapter(string name) => name.Contains("lora_", StringComparison.Ordinal) || name.Contains("modules_to_save", StringComparison.Ordinal);

    private void SaveProjector(string folder)
    {
        // LLaVA drops an image_newline that stage 1 has drawn; its loader takes it from this file where it is there.
        var state = Copies(n => n.Contains("mm_projector", StringComparison.Ordinal) || n == ProjectorSource.Newline ? n : null);
        Write(state, () => PickleWriter.Write(Path.Combine(folder, "mm_projector.bin"), state));
    }

    private void SaveWhole(string folder)
    {
        var names = _trained.FileNames();
        var state = Copies(n => names.GetValueOrDefault(n, n));
        Write(state, () => ShardedWriter.Write(folder, state, maxShardBytes: Options.MaxShardBytes));
    }

    /// <summary>Parameters by the names of their file; null for those that it does not hold.</summary>
    private OrderedDictionary<string, Tensor> Copies(Func<string, string?> fileName)
    {
        using var noGrad = no_grad();
        var state = new OrderedDictionary<string, Tensor>();
        foreach (var (name, parameter) in _trained.Parameters)
            if (fileName(name) is { } key) state[key] = parameter.detach().cpu().DetachFromDisposeScope();
        return state;
    }

    private static void Write(OrderedDictionary<string, Tensor> state, Action write)
    {
        try
        {
            write();
        }
        finally
        {
            foreach (var tensor in state.Values) tensor.Dispose();
        }
    }
}
