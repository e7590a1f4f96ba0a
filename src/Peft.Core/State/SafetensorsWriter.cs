using System.Buffers.Binary;
using System.Globalization;
using System.Text;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>
/// Writes <c>.safetensors</c> files, byte for byte as Python's <c>safetensors.torch.save_file</c> does for the same tensors and metadata.
/// Source: <c>serialize_to_file</c> of the safetensors crate: tensors by falling dtype, then by name; compact JSON padded with spaces to 8.
/// </summary>
public static class SafetensorsWriter
{
    /// <summary>The metadata that PEFT and transformers write: <c>{"format": "pt"}</c>.</summary>
    public static IReadOnlyDictionary<string, string> PyTorchMetadata { get; } = new Dictionary<string, string> { ["format"] = "pt" };

    /// <summary>Writes a file; see <see cref="AtomicFile"/> for what others see meanwhile.</summary>
    /// <param name="path">The file; its folder must exist.</param>
    /// <param name="tensors">Tensors by name, of any shape, strides and device; the caller keeps them. Those that share memory are written each.</param>
    /// <param name="metadata">The file's <c>__metadata__</c>, or null for none; see <see cref="PyTorchMetadata"/>.</param>
    /// <param name="cancellation">Ends the writing; an earlier file is as it was.</param>
    /// <exception cref="TensorWriteException">A tensor cannot be written; nothing was.</exception>
    /// <exception cref="FileWriteException">The operating system refused; an earlier file is as it was.</exception>
    public static void Write(
        string path, IEnumerable<KeyValuePair<string, Tensor>> tensors, IEnumerable<KeyValuePair<string, string>>? metadata = null,
        CancellationToken cancellation = default)
        => Write(path, NamedTensor.From(tensors), metadata, cancellation);

    /// <inheritdoc cref="Write(string, IEnumerable{KeyValuePair{string, Tensor}}, IEnumerable{KeyValuePair{string, string}}, CancellationToken)"/>
    public static void Write(
        string path, IEnumerable<NamedTensor> tensors, IEnumerable<KeyValuePair<string, string>>? metadata = null,
        CancellationToken cancellation = default)
    {
        using var file = AtomicFile.Begin(path);
        Stage(file, tensors, metadata, cancellation);
        file.Commit();
    }

    /// <summary>Writes the content of a file that is committed later.</summary>
    internal static void Stage(
        AtomicFile file, IEnumerable<NamedTensor> tensors, IEnumerable<KeyValuePair<string, string>>? metadata, CancellationToken cancellation)
    {
        ArgumentNullException.ThrowIfNull(tensors);
        var plan = Plan(file.Path, tensors);
        byte[] header = Header(plan, metadata);
        file.FillStream(stream =>
        {
            Span<byte> length = stackalloc byte[8];
            BinaryPrimitives.WriteInt64LittleEndian(length, header.Length);
            stream.Write(length);
            stream.Write(header);
            foreach (var item in plan) TensorBytes.Visit(item.Value, stream.Write, cancellation);
        });
    }

    private static List<Item> Plan(string path, IEnumerable<NamedTensor> tensors)
    {
        var items = new List<Item>();
        foreach (var (name, value, given) in tensors)
        {
            if (name == "__metadata__")
                throw new TensorWriteException(path, name, "has the name that the format keeps for its metadata", "Rename it.");
            string dtype = given ?? TensorDtypes.NameOf(value.dtype)
                ?? throw new TensorWriteException(path, name, $"is {value.dtype}, which the format does not know", "Convert it to a dtype of the format: "
                    + string.Join(", ", TensorDtypes.Names) + ".");
            items.Add(new Item(name, value, dtype, ShapeInFile(path, name, value, dtype)));
        }
        NamedTensor.CheckNames(path, items.Select(item => item.Name));
        items.Sort((x, y) => TensorDtypes.Rank(y.Dtype) - TensorDtypes.Rank(x.Dtype) is var order and not 0
            ? order
            : CompareUtf8(x.Name, y.Name));
        return items;
    }

    private static long[] ShapeInFile(string path, string name, Tensor value, string dtype)
    {
        if (!TensorDtypes.IsKnown(dtype) || TensorDtypes.InMemory(dtype) != value.dtype)
            throw new TensorWriteException(path, name, $"is {value.dtype} and cannot be written as {dtype}", "Leave the dtype's name out, or convert the tensor.");
        long[] shape = value.shape;
        int size = TensorDtypes.SizeInFile(dtype);
        if (value.dtype != ScalarType.Byte || size == 1) return shape;
        if (shape.Length == 0 || shape[^1] != size)
            throw new TensorWriteException(
                path, name, $"has shape ({string.Join(", ", shape)}), but the bytes of {dtype} stand in a last dimension of {size}", "Add that dimension.");
        return shape[..^1];
    }

    // The crate sorts by UTF-8; .NET's ordinal order is that of UTF-16 and differs above U+D800.
    private static int CompareUtf8(string x, string y) => Encoding.UTF8.GetBytes(x).AsSpan().SequenceCompareTo(Encoding.UTF8.GetBytes(y));

    private static byte[] Header(List<Item> items, IEnumerable<KeyValuePair<string, string>>? metadata)
    {
        var text = new StringBuilder("{");
        if (metadata is not null)
        {
            text.Append("\"__metadata__\":{");
            AppendJoined(text, metadata, pair =>
            {
                AppendString(text, pair.Key);
                text.Append(':');
                AppendString(text, pair.Value);
            });
            text.Append(items.Count > 0 ? "}," : "}");
        }
        long offset = 0;
        AppendJoined(text, items, item =>
        {
            long end = offset + item.Shape.Aggregate((long)TensorDtypes.SizeInFile(item.Dtype), (product, side) => product * side);
            AppendString(text, item.Name);
            text.Append(CultureInfo.InvariantCulture, $":{{\"dtype\":\"{item.Dtype}\",\"shape\":[{string.Join(',', item.Shape)}],");
            text.Append(CultureInfo.InvariantCulture, $"\"data_offsets\":[{offset},{end}]}}");
            offset = end;
        });
        text.Append('}');
        byte[] json = Encoding.UTF8.GetBytes(text.ToString());
        int length = (json.Length + 7) / 8 * 8;
        byte[] padded = new byte[length];
        json.CopyTo(padded, 0);
        padded.AsSpan(json.Length).Fill((byte)' ');
        return padded;
    }

    private static void AppendJoined<T>(StringBuilder text, IEnumerable<T> items, Action<T> append)
    {
        bool first = true;
        foreach (var item in items)
        {
            if (!first) text.Append(',');
            first = false;
            append(item);
        }
    }

    // serde_json's escaping: quotes, backslash and control characters only; everything else stands as UTF-8.
    private static void AppendString(StringBuilder text, string value)
    {
        text.Append('"');
        foreach (char c in value)
        {
            _ = c switch
            {
                '"' => text.Append("\\\""),
                '\\' => text.Append("\\\\"),
                '\b' => text.Append("\\b"),
                '\f' => text.Append("\\f"),
                '\n' => text.Append("\\n"),
                '\r' => text.Append("\\r"),
                '\t' => text.Append("\\t"),
                < ' ' => text.Append(CultureInfo.InvariantCulture, $"\\u{(int)c:x4}"),
                _ => text.Append(c),
            };
        }
        text.Append('"');
    }

    private sealed record Item(string Name, Tensor Value, string Dtype, long[] Shape);
}
