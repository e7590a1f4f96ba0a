using System.Text.Json;
using Peft.Core;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>The weight files of a checkpoint folder as one reader.</summary>
internal sealed class CheckpointFiles : ITensorReader
{
    private readonly List<ITensorReader> _files = [];
    private readonly Dictionary<string, TensorEntry> _entries = [];
    private readonly Dictionary<string, ITensorReader> _owners = [];

    private CheckpointFiles(string folder) => Source = folder;

    public static ITensorReader Open(string folder)
    {
        string? index = null;
        foreach (string name in (string[])["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"])
        {
            if (!File.Exists(Path.Combine(folder, name))) continue;
            index = Path.Combine(folder, name);
            if (!name.EndsWith(".json")) return One(index);
            break;
        }
        if (index is null) throw new FileNotFoundException(folder);
        using var json = JsonDocument.Parse(File.ReadAllBytes(index));
        var files = new CheckpointFiles(folder);
        foreach (string file in json.RootElement.GetProperty("weight_map").EnumerateObject().Select(p => p.Value.GetString()!).Distinct())
        {
            var reader = One(Path.Combine(folder, file));
            files._files.Add(reader);
            foreach (var (name, entry) in reader.Entries)
            {
                files._entries[name] = entry;
                files._owners[name] = reader;
            }
        }
        return files;
    }

    private static ITensorReader One(string path) => path.EndsWith(".bin") ? PickleReader.Open(path) : SafetensorsReader.Open(path);

    public string Source { get; }

    public IReadOnlyDictionary<string, TensorEntry> Entries => _entries;

    public Tensor Load(string name) => _owners[name].Load(name);

    public Tensor Map(string name) => _owners[name].Map(name);

    public void Dispose() => _files.ForEach(f => f.Dispose());
}
