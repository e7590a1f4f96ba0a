using Peft.Core;
using static TorchSharp.torch;

namespace Peft.Llava;

public sealed partial class LLaVATrainer
{
    /// <summary>
    /// Writes what was trained as LLaVA does. Adapters: <c>adapter_model.safetensors</c>, <c>adapter_config.json</c>,
    /// <c>non_lora_trainables.bin</c>. The projector alone: <c>mm_projector.bin</c>. A whole model: <c>model.safetensors</c>, in several files beyond <see cref="TrainingOptions.MaxShardBytes"/>.
    /// Each with <c>config.json</c>, <c>trainer_state.json</c> and the tokenizer's files, which know the tokens that were added
    /// (<see cref="ITrainingData.Tokenizer"/>). Of several processes only the first one writes.
    /// </summary>
    /// <param name="folder">The folder; null for <see cref="TrainingOptions.OutputDirectory"/>. Made if need be.</param>
    /// <exception cref="FileWriteException">The operating system refused; earlier files are as they were, and the weights are still in memory.</exception>
    /// <exception cref="TokenizerFileException">The files that the tokenizer was read from are no longer there.</exception>
    /// <exception cref="CheckpointException">What was written does not read back as it is in memory, or is of no use; the weights are still in memory.</exception>
    public void SaveModel(string? folder = null)
    {
        if (Saves) Save(folder ?? Options.OutputDirectory, useCache: true);
    }

    private bool SavesWhole => _trained.Peft is null && SavedConfig.IsWhole(Options);

    private void Save(string folder, bool useCache)
    {
        OutputFolder.Create(folder);
        if (_trained.Peft is { } peft) SaveAdapter(peft, folder);
        else if (SavesWhole) SaveWhole(folder);
        else SaveProjector(folder);
        if (_data.Tokenizer is { } tokenizer) TokenizerFiles.Write(tokenizer, folder, Options.MaxLength);
        else if (BaseFolder is { } source) TokenizerFiles.Copy(source, folder, Options.MaxLength);
        AtomicFile.WriteText(Path.Combine(folder, "config.json"), SavedConfig.Write(_trained, Options, useCache));
        AtomicFile.WriteText(Path.Combine(folder, "trainer_state.json"), TrainerStateFile.Write(_history, _evaluator, _bestFolder, Options, _plan));
        Verify(folder);
    }

    /// <summary>Reads back what was written: names, shapes, and every value, which has to be finite and the model's own.</summary>
    private void Verify(string folder)
    {
        using var weights = new SavedWeights(folder, _trained);
        weights.Verify([.. _trained.Trained], _moved);
    }

    private void SaveAdapter(PeftModel peft, string folder)
    {
        peft.Save(folder, format: Options.SaveAdapterAsPickle ? AdapterFileFormat.Bin : AdapterFileFormat.Safetensors);
        // What PEFT puts into its own file (modules_to_save) is not written twice.
        var adapterOwn = peft.Hosts.SelectMany(h => h.AdapterNames.SelectMany(h.TensorsOf)).Select(t => t.Tensor.Handle).ToHashSet();
        var state = PeftState.GetNonLoraTrainables(peft.NamedParameters().Where(p => !adapterOwn.Contains(p.Parameter.Handle)));
        Write(state, () => PickleWriter.Write(Path.Combine(folder, NonLoraTrainables.FileName), state));
    }

    private void SaveProjector(string folder)
    {
        var state = Copies(n => n.Contains("mm_projector", StringComparison.Ordinal));
        Write(state, () => PickleWriter.Write(Path.Combine(folder, "mm_projector.bin"), state));
    }

    private void SaveWhole(string folder)
    {
        var state = Copies(_ => true);
        Write(state, () => ShardedWriter.Write(folder, state, maxShardBytes: Options.MaxShardBytes));
        if (BaseFolder is { } source) OutputFolder.CopyCompanions(source, folder);
    }

    private OrderedDictionary<string, Tensor> Copies(Func<string, bool> wanted)
    {
        using var noGrad = no_grad();
        var state = new OrderedDictionary<string, Tensor>();
        foreach (var (name, parameter) in _trained.Parameters)
            if (wanted(name)) state[name] = parameter.detach().cpu().DetachFromDisposeScope();
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
