using System.Globalization;
using Peft.Core;
using static TorchSharp.torch;

namespace Peft.Llava;

public sealed partial class LLaVATrainer
{
    private const string CheckpointPrefix = "checkpoint-";

    /// <summary>
    /// Writes what was trained as LLaVA does. Adapters: <c>adapter_model.safetensors</c>, <c>adapter_config.json</c>,
    /// <c>non_lora_trainables.bin</c>. The projector alone: <c>mm_projector.bin</c>. A whole model: <c>model.safetensors</c> with the tokenizer's
    /// files. Each with <c>config.json</c> and <c>trainer_state.json</c>.
    /// </summary>
    /// <param name="folder">The folder; null for <see cref="TrainingOptions.OutputDirectory"/>. Made if need be.</param>
    /// <exception cref="FileWriteException">The operating system refused; earlier files are as they were, and the weights are still in memory.</exception>
    public void SaveModel(string? folder = null) => Save(folder ?? Options.OutputDirectory, useCache: true);

    private void Save(string folder, bool useCache)
    {
        OutputFolder.Create(folder);
        if (_trained.Peft is { } peft) SaveAdapter(peft, folder);
        else if (SavedConfig.IsWhole(Options)) SaveWhole(folder);
        else SaveProjector(folder);
        AtomicFile.WriteText(Path.Combine(folder, "config.json"), SavedConfig.Write(_trained, Options, useCache));
        AtomicFile.WriteText(Path.Combine(folder, "trainer_state.json"), TrainerStateFile.Write(_history, Options, _plan));
    }

    private void SaveAdapter(PeftModel peft, string folder)
    {
        peft.Save(folder, format: Options.SaveAdapterAsPickle ? AdapterFileFormat.Bin : AdapterFileFormat.Safetensors);
        // What PEFT puts into its own file (modules_to_save) is not written twice.
        var adapterOwn = peft.Hosts.SelectMany(h => h.AdapterNames.SelectMany(h.TensorsOf)).Select(t => t.Tensor.Handle).ToHashSet();
        var state = PeftState.GetNonLoraTrainables(peft.NamedParameters().Where(p => !adapterOwn.Contains(p.Parameter.Handle)));
        Write(state, () => PickleWriter.Write(Path.Combine(folder, "non_lora_trainables.bin"), state));
    }

    private void SaveProjector(string folder)
    {
        var state = Copies(n => n.Contains("mm_projector", StringComparison.Ordinal));
        Write(state, () => PickleWriter.Write(Path.Combine(folder, "mm_projector.bin"), state));
    }

    private void SaveWhole(string folder)
    {
        var state = Copies(_ => true);
        Write(state, () => SafetensorsWriter.Write(Path.Combine(folder, "model.safetensors"), state, SafetensorsWriter.PyTorchMetadata));
        if (Path.GetDirectoryName(_trained.Model.Config.Source) is { Length: > 0 } source && Directory.Exists(source))
            OutputFolder.CopyCompanions(source, folder, Options.MaxLength);
    }

    /// <summary>A checkpoint folder appears whole or not at all: it is written under another name and renamed.</summary>
    private void SaveCheckpoint()
    {
        string name = CheckpointPrefix + StepsDone.ToString(CultureInfo.InvariantCulture);
        string target = Path.Combine(Options.OutputDirectory, name), pending = Path.Combine(Options.OutputDirectory, $".{name}.tmp");
        try
        {
            if (Directory.Exists(pending)) Directory.Delete(pending, recursive: true);
            Save(pending, useCache: false);
            if (Directory.Exists(target)) Directory.Delete(target, recursive: true);
            Directory.Move(pending, target);
            RemoveOldCheckpoints();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new FileWriteException(target, e);
        }
    }

    private void RemoveOldCheckpoints()
    {
        if (Options.SaveTotalLimit is not int limit) return;
        var all = Directory.EnumerateDirectories(Options.OutputDirectory, CheckpointPrefix + "*")
            .Select(path => (Path: path, Step: int.TryParse(Path.GetFileName(path).AsSpan(CheckpointPrefix.Length), CultureInfo.InvariantCulture, out int step) ? step : -1))
            .Where(c => c.Step >= 0).OrderBy(c => c.Step).ToList();
        foreach (var (path, _) in all.Take(Math.Max(0, all.Count - limit))) Directory.Delete(path, recursive: true);
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
