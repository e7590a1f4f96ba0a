using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.RegularExpressions;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>The file format of a checkpoint.</summary>
public enum TensorFileFormat
{
    /// <summary>safetensors: <c>model.safetensors</c>.</summary>
    Safetensors,

    /// <summary>PyTorch's zip of a pickle: <c>pytorch_model.bin</c>.</summary>
    PyTorch,
}

/// <summary>
/// Writes a checkpoint as <c>save_pretrained</c> of transformers does: one file while it stays below a size, otherwise several
/// (<c>model-00001-of-00003.safetensors</c>) and an index. Source: <c>split_torch_state_dict_into_shards</c> of huggingface_hub.
/// </summary>
public static partial class ShardedWriter
{
    /// <summary>transformers' usual limit of one file, 5 GB.</summary>
    public const long DefaultShardBytes = 5_000_000_000;

    /// <summary>Writes a checkpoint; files of an earlier one with the same stem are replaced or removed once the new ones are whole.</summary>
    /// <param name="folder">The folder; it is made if need be.</param>
    /// <param name="tensors">Tensors by name, in the order in which they go to the files; the caller keeps them.</param>
    /// <param name="format">The format.</param>
    /// <param name="maxShardBytes">The most bytes of tensors in one file; a larger tensor gets a file of its own.</param>
    /// <param name="cancellation">Ends the writing; earlier files are as they were.</param>
    /// <returns>The names of the files written; the index, if any, comes last.</returns>
    /// <exception cref="TensorWriteException">A tensor cannot be written; nothing was changed.</exception>
    /// <exception cref="FileWriteException">The operating system refused; earlier files are as they were.</exception>
    public static IReadOnlyList<string> Write(
        string folder, IEnumerable<KeyValuePair<string, Tensor>> tensors, TensorFileFormat format = TensorFileFormat.Safetensors,
        long maxShardBytes = DefaultShardBytes, CancellationToken cancellation = default)
    {
        ArgumentException.ThrowIfNullOrEmpty(folder);
        ArgumentNullException.ThrowIfNull(tensors);
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(maxShardBytes);
        var named = NamedTensor.From(tensors);
        NamedTensor.CheckNames(folder, named.Select(item => item.Name));
        MakeFolder(folder);
        var (stem, ending) = format == TensorFileFormat.Safetensors ? ("model", ".safetensors") : ("pytorch_model", ".bin");
        var shards = Split(named, maxShardBytes);
        var names = shards.Count == 1 ? [stem + ending] : shards.Select((_, i) => $"{stem}-{i + 1:D5}-of-{shards.Count:D5}{ending}").ToList();
        var pending = new List<AtomicFile>();
        try
        {
            foreach (var (shard, name) in shards.Zip(names)) pending.Add(Stage(Path.Combine(folder, name), shard, format, cancellation));
            if (shards.Count > 1)
            {
                names.Add($"{stem}{ending}.index.json");
                var index = AtomicFile.Begin(Path.Combine(folder, names[^1]));
                pending.Add(index);
                index.Fill(temporary => File.WriteAllBytes(temporary, Index(shards, names)));
            }
            foreach (var file in pending) file.Commit();
        }
        finally
        {
            foreach (var file in pending) file.Dispose();
        }
        RemoveEarlier(folder, stem, ending, names);
        return names;
    }

    private static void MakeFolder(string folder)
    {
        try
        {
            Directory.CreateDirectory(folder);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new FileWriteException(folder, e);
        }
    }

    private static List<List<NamedTensor>> Split(IReadOnlyList<NamedTensor> tensors, long maxShardBytes)
    {
        var shards = new List<List<NamedTensor>>();
        var current = new List<NamedTensor>();
        long currentBytes = 0;
        foreach (var item in tensors)
        {
            long bytes = Bytes(item);
            if (bytes > maxShardBytes)
            {
                shards.Add([item]);
                continue;
            }
            if (currentBytes + bytes > maxShardBytes)
            {
                shards.Add(current);
                (current, currentBytes) = ([], 0);
            }
            current.Add(item);
            currentBytes += bytes;
        }
        if (current.Count > 0 || shards.Count == 0) shards.Add(current);
        return shards;
    }

    private static long Bytes(NamedTensor item) => item.Value.numel() * item.Value.dtype.ElementSize();

    private static AtomicFile Stage(string path, List<NamedTensor> shard, TensorFileFormat format, CancellationToken cancellation)
    {
        var file = AtomicFile.Begin(path);
        try
        {
            if (format == TensorFileFormat.Safetensors) SafetensorsWriter.Stage(file, shard, SafetensorsWriter.PyTorchMetadata, cancellation);
            else
            {
                var items = shard.Select(item => new KeyValuePair<object, object?>(item.Name, item.Value));
                PickleWriter.Stage(file, new PickleDictionary(items), cancellation);
            }
            return file;
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    // json.dumps(index, indent=2, sort_keys=True) + "\n"
    private static byte[] Index(List<List<NamedTensor>> shards, List<string> names)
    {
        using var stream = new MemoryStream();
        var options = new JsonWriterOptions { Indented = true, NewLine = "\n", Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };
        using (var json = new Utf8JsonWriter(stream, options))
        {
            json.WriteStartObject();
            json.WriteStartObject("metadata");
            json.WriteNumber("total_size", shards.Sum(shard => shard.Sum(Bytes)));
            json.WriteEndObject();
            json.WriteStartObject("weight_map");
            var places = shards.Zip(names).SelectMany(pair => pair.First.Select(item => (item.Name, File: pair.Second)));
            foreach (var (name, file) in places.OrderBy(place => place.Name, StringComparer.Ordinal)) json.WriteString(name, file);
            json.WriteEndObject();
            json.WriteEndObject();
        }
        stream.WriteByte((byte)'\n');
        return stream.ToArray();
    }

    // What is left of an earlier saving would be taken for part of this one, or before it.
    private static void RemoveEarlier(string folder, string stem, string ending, List<string> names)
    {
        foreach (string path in Directory.EnumerateFiles(folder, $"{stem}*"))
        {
            string name = Path.GetFileName(path);
            bool ours = name == stem + ending || name == $"{stem}{ending}.index.json"
                || (name.StartsWith(stem + "-", StringComparison.Ordinal) && name.EndsWith(ending, StringComparison.Ordinal)
                    && ShardNumber().IsMatch(name[stem.Length..^ending.Length]));
            if (ours && !names.Contains(name)) File.Delete(path);
        }
    }

    [GeneratedRegex(@"^-\d{5}-of-\d{5}$", RegexOptions.CultureInvariant)]
    private static partial Regex ShardNumber();
}
