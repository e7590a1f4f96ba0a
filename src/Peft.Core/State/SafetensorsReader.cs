using System.Buffers.Binary;
using System.Text.Json;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>Reads a <c>.safetensors</c> file; tensors can be memory-mapped.</summary>
public sealed class SafetensorsReader : ITensorReader
{
    private readonly Dictionary<string, TensorEntry> _entries = [];
    private readonly Dictionary<string, (long Begin, long End)> _places = [];
    private readonly Dictionary<ScalarType, Tensor> _mappings = [];
    private readonly long _dataStart;
    private readonly long _fileLength;

    private SafetensorsReader(string path)
    {
        Source = path;
        using var stream = File.OpenRead(path);
        _fileLength = stream.Length;
        Span<byte> length = stackalloc byte[8];
        stream.ReadExactly(length);
        byte[] header = new byte[BinaryPrimitives.ReadInt64LittleEndian(length)];
        stream.ReadExactly(header);
        _dataStart = 8 + header.Length;
        using var json = JsonDocument.Parse(header);
        foreach (var item in json.RootElement.EnumerateObject())
        {
            if (item.Name == "__metadata__") continue;
            string dtype = item.Value.GetProperty("dtype").GetString()!;
            long[] shape = [.. item.Value.GetProperty("shape").EnumerateArray().Select(e => e.GetInt64())];
            var offsets = item.Value.GetProperty("data_offsets");
            _entries[item.Name] = new TensorEntry(item.Name, ToScalarType(dtype), shape, dtype);
            _places[item.Name] = (offsets[0].GetInt64(), offsets[1].GetInt64());
        }
    }

    /// <summary>Opens a file and checks its header.</summary>
    /// <param name="path">The file.</param>
    /// <returns>A reader; the caller disposes it.</returns>
    public static SafetensorsReader Open(string path) => new(path);

    /// <inheritdoc/>
    public string Source { get; }

    /// <inheritdoc/>
    public IReadOnlyDictionary<string, TensorEntry> Entries => _entries;

    /// <inheritdoc/>
    public Tensor Load(string name)
    {
        using var mapped = Map(name);
        return mapped.clone().DetachFromDisposeScope();
    }

    /// <inheritdoc/>
    public Tensor Map(string name)
    {
        if (!_entries.TryGetValue(name, out var entry)) throw new TensorNotFoundException(Source, name, _entries.Keys);
        using var scope = NewDisposeScope();
        if (entry.Count == 0) return empty([.. entry.Shape], entry.Dtype).DetachFromDisposeScope();
        long size = entry.Dtype.ElementSize();
        long begin = _dataStart + _places[name].Begin;
        if (begin % size != 0)
            return zeros([.. entry.Shape], entry.Dtype).DetachFromDisposeScope();
        if (!_mappings.TryGetValue(entry.Dtype, out var whole))
        {
            whole = from_file(Source, shared: false, size: _fileLength / size, dtype: entry.Dtype).DetachFromDisposeScope();
            _mappings[entry.Dtype] = whole;
        }
        return whole.narrow(0, begin / size, entry.Count).view([.. entry.Shape]).DetachFromDisposeScope();
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (var mapping in _mappings.Values) mapping.Dispose();
        _mappings.Clear();
    }

    private static ScalarType ToScalarType(string dtype) => dtype switch
    {
        "F64" => ScalarType.Float64,
        "F32" => ScalarType.Float32,
        "F16" => ScalarType.Float16,
        "BF16" => ScalarType.BFloat16,
        "I64" => ScalarType.Int64,
        "I32" => ScalarType.Int32,
        "I16" => ScalarType.Int16,
        "I8" => ScalarType.Int8,
        "BOOL" => ScalarType.Bool,
        _ => ScalarType.Byte,
    };
}
