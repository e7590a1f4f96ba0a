using System.Text.Json;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>
/// Reads a checkpoint in several files through its index: <c>model.safetensors.index.json</c>, <c>pytorch_model.bin.index.json</c>. Every
/// tensor of the index must be in its file, and every tensor of the files in the index.
/// </summary>
public sealed class ShardedCheckpoint : ITensorReader
{
    private readonly OrderedDictionary<string, TensorEntry> _entries = [];
    private readonly Dictionary<string, ITensorReader> _shardOf = [];
    private readonly OrderedDictionary<string, ITensorReader> _shards = [];

    private ShardedCheckpoint(string indexPath)
    {
        Source = indexPath;
        var weightMap = ReadIndex(indexPath);
        var faults = new List<string>();
        try
        {
            OpenShards(weightMap, faults);
            CheckTensors(weightMap, faults);
            if (faults.Count > 0) throw new ShardedCheckpointException(indexPath, faults);
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>Opens all files of a checkpoint and compares them with the index; tensors stay in the files until they are asked for.</summary>
    /// <param name="indexPath">The index file.</param>
    /// <returns>A reader; the caller disposes it. Tensors read from it stay valid after that.</returns>
    /// <exception cref="TensorFileNotFoundException">There is no such index.</exception>
    /// <exception cref="ShardedCheckpointException">Index and files do not fit together; tells all faults.</exception>
    /// <exception cref="TensorFileException">A file is damaged.</exception>
    public static ShardedCheckpoint Open(string indexPath)
    {
        ArgumentException.ThrowIfNullOrEmpty(indexPath);
        return new ShardedCheckpoint(indexPath);
    }

    /// <inheritdoc/>
    public string Source { get; }

    /// <summary>The names of the checkpoint's files, sorted.</summary>
    public IReadOnlyCollection<string> Shards => _shards.Keys;

    /// <summary>All tensors by name: file by file, each in its order.</summary>
    public IReadOnlyDictionary<string, TensorEntry> Entries => _entries;

    /// <inheritdoc/>
    public Tensor Load(string name) => ShardOf(name).Load(name);

    /// <inheritdoc/>
    public Tensor Map(string name) => ShardOf(name).Map(name);

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (var shard in _shards.Values) shard.Dispose();
    }

    private ITensorReader ShardOf(string name)
        => _shardOf.TryGetValue(name, out var shard) ? shard : throw new TensorNotFoundException(Source, name, _entries.Keys);

    private static OrderedDictionary<string, string> ReadIndex(string path)
    {
        using var file = new TensorFile(path);
        var map = new OrderedDictionary<string, string>();
        try
        {
            byte[] bytes = file.Read(0, (int)Math.Min(file.Length, 1 << 30));
            using var json = JsonDocument.Parse(bytes, new JsonDocumentOptions { AllowDuplicateProperties = false });
            foreach (var item in json.RootElement.GetProperty("weight_map").EnumerateObject())
                map.Add(item.Name, item.Value.GetString() ?? throw new JsonException($"the file of '{item.Name}' is null"));
            return map;
        }
        // What JsonElement throws for another kind of value, or no such property.
        catch (Exception e) when (e is JsonException or InvalidOperationException or KeyNotFoundException or ArgumentException)
        {
            throw new ShardedCheckpointException(path, [$"it is no index, {{\"weight_map\": {{name: file, …}}}} with every name once ({e.Message.TrimEnd('.')})"]);
        }
    }

    private void OpenShards(OrderedDictionary<string, string> weightMap, List<string> faults)
    {
        string folder = Path.GetDirectoryName(Path.GetFullPath(Source))!;
        foreach (string shard in weightMap.Values.Distinct().Order(StringComparer.Ordinal))
        {
            string path = Path.Combine(folder, shard);
            // An index comes from the network and must not lead out of its folder.
            if (shard.Length == 0 || shard is "." or ".." || shard.IndexOfAny(['/', '\\', ':', '\0']) >= 0)
                faults.Add($"'{shard}' is no plain file name");
            else if (!File.Exists(path)) faults.Add($"{shard}: missing from the folder");
            else _shards.Add(shard, TensorFiles.OpenFile(path, allowIndex: false));
        }
    }

    private void CheckTensors(OrderedDictionary<string, string> weightMap, List<string> faults)
    {
        foreach (var (shard, reader) in _shards)
        {
            foreach (var (name, entry) in reader.Entries)
            {
                if (!weightMap.TryGetValue(name, out string? named)) faults.Add($"{shard}: holds {name}, which the index does not name");
                else if (named != shard) faults.Add($"{shard}: holds {name}, which the index has in {named}");
                else
                {
                    _entries.Add(name, entry);
                    _shardOf.Add(name, reader);
                }
            }
        }
        foreach (var (name, shard) in weightMap)
            if (_shards.TryGetValue(shard, out var reader) && !reader.Entries.ContainsKey(name)) faults.Add($"{shard}: lacks {name}, which the index has there");
    }
}
