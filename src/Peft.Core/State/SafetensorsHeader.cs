using System.Buffers.Binary;
using System.Text;
using System.Text.Json;

namespace Peft.Core;

/// <summary>
/// The checked header of a safetensors file. Source: the format's description, and <c>Metadata::validate</c> of the safetensors crate:
/// tensors lie one after another, without holes, from the header's end to the file's.
/// </summary>
internal sealed class SafetensorsHeader
{
    private const int LengthBytes = 8;
    private const long Limit = 100_000_000;
    private readonly string _path;

    private SafetensorsHeader(string path) => _path = path;

    /// <summary>All tensors by name, in the order of the header, with where their bytes begin in the file.</summary>
    public OrderedDictionary<string, (TensorEntry Entry, long Offset)> Tensors { get; } = [];

    /// <summary>The metadata, or null where the header has none.</summary>
    public OrderedDictionary<string, string>? Metadata { get; private set; }

    public static SafetensorsHeader Read(TensorFile file)
    {
        var header = new SafetensorsHeader(file.Path);
        byte[] prefix = file.Read(0, LengthBytes);
        if (prefix.Length < LengthBytes)
            throw header.Fault(SafetensorsFault.TooShort, $"it has {prefix.Length} bytes, fewer than the {LengthBytes} that hold the header's length");
        ulong length = BinaryPrimitives.ReadUInt64LittleEndian(prefix);
        if (length > Limit) throw header.Fault(SafetensorsFault.HeaderTooLarge, $"its header would have {length} bytes, more than the {Limit} of the format");
        byte[] bytes = file.Read(LengthBytes, (int)length);
        if (bytes.Length < (int)length)
            throw header.Fault(SafetensorsFault.HeaderCutOff, $"its header has {length} bytes, but only {bytes.Length} follow");
        header.Parse(bytes, LengthBytes + (long)length, file.Length);
        return header;
    }

    private void Parse(byte[] bytes, long dataStart, long fileLength)
    {
        try
        {
            _ = new UTF8Encoding(false, throwOnInvalidBytes: true).GetCharCount(bytes);
        }
        catch (DecoderFallbackException)
        {
            throw Fault(SafetensorsFault.HeaderNotUtf8, "its header is no valid UTF-8");
        }
        var raw = new OrderedDictionary<string, RawEntry>();
        try
        {
            ReadItems(bytes, raw);
        }
        // InvalidOperationException: half of a surrogate pair in an escape.
        catch (Exception e) when (e is JsonException or InvalidOperationException)
        {
            throw Fault(SafetensorsFault.HeaderNotJson, $"its header is no JSON ({e.Message.TrimEnd('.')})");
        }
        long dataLength = fileLength - dataStart;
        foreach (var (name, entry) in raw) Tensors.Add(name, (Check(name, entry, dataLength), dataStart + entry.Begin!.Value));
        CheckCover(raw, dataLength);
    }

    private void ReadItems(byte[] bytes, OrderedDictionary<string, RawEntry> raw)
    {
        Expect(bytes.Length > 0 && bytes[0] == (byte)'{', null, "its header does not begin with {");
        var json = new Utf8JsonReader(bytes);
        json.Read();
        while (json.Read() && json.TokenType == JsonTokenType.PropertyName)
        {
            string name = json.GetString()!;
            json.Read();
            if (name == "__metadata__")
            {
                if (Metadata is not null) throw Fault(SafetensorsFault.Duplicate, "its header has two __metadata__");
                Metadata = ReadMetadata(ref json);
            }
            else if (!raw.TryAdd(name, ReadEntry(ref json, name))) throw Fault(SafetensorsFault.Duplicate, "its header names it twice", name);
        }
        json.Read();                                             // throws on anything but space after the object
    }

    private OrderedDictionary<string, string> ReadMetadata(ref Utf8JsonReader json)
    {
        var metadata = new OrderedDictionary<string, string>();
        Expect(json.TokenType == JsonTokenType.StartObject, null, "its __metadata__ is no JSON object");
        while (json.Read() && json.TokenType == JsonTokenType.PropertyName)
        {
            string key = json.GetString()!;
            json.Read();
            Expect(json.TokenType == JsonTokenType.String, null, $"its metadata '{key}' is no text");
            if (!metadata.TryAdd(key, json.GetString()!)) throw Fault(SafetensorsFault.Duplicate, $"its metadata has '{key}' twice");
        }
        return metadata;
    }

    private RawEntry ReadEntry(ref Utf8JsonReader json, string name)
    {
        Expect(json.TokenType == JsonTokenType.StartObject, name, "its entry is no JSON object");
        var entry = new RawEntry();
        while (json.Read() && json.TokenType == JsonTokenType.PropertyName)
        {
            string field = json.GetString()!;
            json.Read();
            bool repeated;
            switch (field)
            {
                case "dtype":
                    Expect(json.TokenType == JsonTokenType.String, name, "its dtype is no text");
                    repeated = entry.Dtype is not null;
                    entry.Dtype = json.GetString();
                    break;
                case "shape":
                    repeated = entry.Shape is not null;
                    entry.Shape = ReadNumbers(ref json, name, field, SafetensorsFault.InvalidShape);
                    break;
                case "data_offsets":
                    repeated = entry.Begin is not null;
                    long[] offsets = ReadNumbers(ref json, name, field, SafetensorsFault.InvalidOffsets);
                    Expect(offsets.Length == 2, name, $"its data_offsets are {offsets.Length} numbers, not two");
                    (entry.Begin, entry.End) = (offsets[0], offsets[1]);
                    break;
                default:
                    throw Fault(SafetensorsFault.HeaderNotJson, $"its entry has a field '{field}', which the format does not know", name);
            }
            if (repeated) throw Fault(SafetensorsFault.Duplicate, $"its entry has two {field}", name);
        }
        Expect(entry is { Dtype: not null, Shape: not null, Begin: not null }, name, "its entry lacks dtype, shape or data_offsets");
        return entry;
    }

    private long[] ReadNumbers(ref Utf8JsonReader json, string name, string field, SafetensorsFault fault)
    {
        Expect(json.TokenType == JsonTokenType.StartArray, name, $"its {field} is no list");
        var numbers = new List<long>();
        while (json.Read() && json.TokenType != JsonTokenType.EndArray)
        {
            Expect(json.TokenType == JsonTokenType.Number, name, $"its {field} holds what is no number");
            if (!json.TryGetInt64(out long number) || number < 0)
                throw Fault(fault, $"its {field} holds {Encoding.UTF8.GetString(json.ValueSpan)}, which is no whole number from 0 to 2^63 - 1", name);
            numbers.Add(number);
        }
        return [.. numbers];
    }

    private TensorEntry Check(string name, RawEntry entry, long dataLength)
    {
        string dtype = entry.Dtype!;
        long begin = entry.Begin!.Value, end = entry.End;
        if (!TensorDtypes.IsKnown(dtype)) throw Fault(SafetensorsFault.UnknownDtype, $"its dtype is '{dtype}'", name);
        if (begin > end) throw Fault(SafetensorsFault.InvalidOffsets, $"its bytes begin at {begin} and end before that, at {end}", name);
        Int128 size = TensorDtypes.SizeInFile(dtype);
        // Not just the product: a side of 0 would hide an absurd one before it.
        foreach (long side in entry.Shape!)
        {
            size *= Math.Max(side, 1);
            if (size > long.MaxValue)
                throw Fault(SafetensorsFault.InvalidShape, $"its shape ({string.Join(", ", entry.Shape)}) has more bytes than 64 bits can count", name);
        }
        if (entry.Shape.Contains(0)) size = 0;
        if (size != end - begin)
            throw Fault(SafetensorsFault.SizeMismatch, $"its shape ({string.Join(", ", entry.Shape)}) in {dtype} takes {size} bytes, but it has {end - begin}", name);
        if (end > dataLength)
            throw Fault(SafetensorsFault.CutOff, $"its bytes end at {end}, but the file has only {dataLength} bytes of tensors", name);
        return new TensorEntry(name, TensorDtypes.InMemory(dtype), TensorDtypes.ShapeInMemory(dtype, entry.Shape), dtype);
    }

    private void CheckCover(OrderedDictionary<string, RawEntry> raw, long dataLength)
    {
        long covered = 0;
        foreach (var (name, entry) in raw.OrderBy(item => item.Value.Begin).ThenBy(item => item.Value.End))
        {
            if (entry.Begin < covered)
                throw Fault(SafetensorsFault.Overlap, $"its bytes begin at {entry.Begin}, inside another tensor that ends at {covered}", name);
            if (entry.Begin > covered) throw Fault(SafetensorsFault.Unclaimed, $"the bytes {covered} to {entry.Begin} before it belong to no tensor", name);
            covered = entry.End;
        }
        if (covered < dataLength) throw Fault(SafetensorsFault.Unclaimed, $"{dataLength - covered} bytes after its last tensor belong to no tensor");
    }

    private void Expect(bool condition, string? name, string details)
    {
        if (!condition) throw Fault(SafetensorsFault.HeaderNotJson, details, name);
    }

    private SafetensorsFormatException Fault(SafetensorsFault fault, string details, string? tensor = null) => new(_path, fault, details, tensor);

    private struct RawEntry
    {
        public string? Dtype;
        public long[]? Shape;
        public long? Begin;
        public long End;
    }
}
