using Peft.Core;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>The trained tensors in a folder of results, by the names that the training gives them.</summary>
internal sealed class SavedWeights : IDisposable
{
    private static readonly string[] Files =
        [AdapterFolder.SafetensorsName, AdapterFolder.BinName, NonLoraTrainables.FileName, "mm_projector.bin"];

    private readonly string _folder;
    private readonly List<ITensorReader> _readers = [];
    private readonly Dictionary<string, string> _fileNames;

    public SavedWeights(string folder, TrainedModel model)
    {
        _folder = folder;
        foreach (string name in Files)
        {
            string path = Path.Combine(folder, name);
            if (File.Exists(path)) _readers.Add(Path.GetExtension(name) == ".bin" ? PickleReader.Open(path) : SafetensorsReader.Open(path));
        }
        if (File.Exists(Path.Combine(folder, "model.safetensors")) || File.Exists(Path.Combine(folder, "model.safetensors.index.json"))) _readers.Add(TensorFiles.Open(folder));
        _fileNames = model.FileNames();
    }

    /// <summary>Everything that keeps the trained parameters from being read: one sentence each.</summary>
    public List<string> Faults(IEnumerable<NamedParameter> parameters)
    {
        var faults = new List<string>();
        foreach (var (name, parameter) in parameters)
        {
            if (Find(name) is not { } place) faults.Add($"'{name}' is in no file");
            else if (!place.Reader.Entries[place.Key].Shape.SequenceEqual(parameter.shape))
                faults.Add($"'{name}' has shape ({string.Join(", ", place.Reader.Entries[place.Key].Shape)}), the model ({string.Join(", ", parameter.shape)})");
        }
        return faults;
    }

    /// <summary>Copies the files' values into the parameters; all faults are found before anything changes.</summary>
    public void CopyTo(IReadOnlyList<NamedParameter> parameters)
    {
        var faults = Faults(parameters);
        if (faults.Count > 0) throw new StateMismatchException($"The checkpoint {_folder}", faults);
        using var noGrad = no_grad();
        foreach (var (name, parameter) in parameters)
        {
            using var value = Load(name);
            parameter.copy_(value);
        }
    }

    /// <summary>Reads everything back and compares it with what is in memory.</summary>
    /// <param name="parameters">What is trained.</param>
    /// <param name="moved">Whether a step has moved weights: an adapter whose B is zero everywhere has then learned nothing.</param>
    public void Verify(IReadOnlyList<NamedParameter> parameters, bool moved)
    {
        var faults = Faults(parameters);
        using var noGrad = no_grad();
        if (faults.Count == 0)
        {
            foreach (var (name, parameter) in parameters)
            {
                using var scope = NewDisposeScope();
                var value = Load(name);
                if (!value.isfinite().all().item<bool>()) faults.Add($"'{name}' holds values that are not finite");
                else if (value.dtype != parameter.dtype || value.ne(parameter.cpu()).any().item<bool>()) faults.Add($"'{name}' differs from the model's");
            }
            var factors = parameters.Where(p => p.Name.Contains("lora_B", StringComparison.Ordinal) || p.Name.Contains("lora_embedding_B", StringComparison.Ordinal)).ToList();
            if (moved && factors.Count > 0 && !factors.Exists(IsNonZero)) faults.Add($"lora_B is zero in all {factors.Count} layers although steps were done, so the adapter does nothing");
        }
        if (faults.Count > 0)
            throw new CheckpointException(_folder, $"it does not read back as it was written: {string.Join("; ", faults.Take(5))}{(faults.Count > 5 ? "; …" : "")}",
                "The weights are still in memory; check the disk and call SaveModel with another folder.");
    }

    public void Dispose() => _readers.ForEach(r => r.Dispose());

    private bool IsNonZero(NamedParameter parameter)
    {
        using var value = Load(parameter.Name);
        using var count = value.count_nonzero();
        return count.item<long>() > 0;
    }

    private Tensor Load(string name)
    {
        var (reader, key) = Find(name)!.Value;
        return reader.Load(key);
    }

    private (ITensorReader Reader, string Key)? Find(string name)
    {
        string adapterKey = _fileNames.GetValueOrDefault(name, name);
        foreach (var reader in _readers)
        {
            if (reader.Entries.ContainsKey(adapterKey)) return (reader, adapterKey);
            if (reader.Entries.ContainsKey(name)) return (reader, name);
        }
        return null;
    }
}
