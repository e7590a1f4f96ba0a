using System.Globalization;
using System.Text;
using System.Text.Json;
using static TorchSharp.torch;

namespace Peft.Quantization;

/// <summary>The JSON that bitsandbytes stores beside a 4-bit weight, byte for byte: Python's <c>json.dumps</c> of a dict in this order.</summary>
/// <param name="Type">The code.</param>
/// <param name="BlockSize">Values per block.</param>
/// <param name="Dtype">The dtype of the original weight.</param>
/// <param name="Shape">The shape of the original weight.</param>
/// <param name="NestedOffset">With double quantisation, the mean of the block maxima; else null.</param>
internal sealed record QuantStateJson(QuantType Type, int BlockSize, ScalarType Dtype, IReadOnlyList<long> Shape, float? NestedOffset)
{
    /// <summary>The text as UTF-8.</summary>
    public byte[] ToBytes()
    {
        var text = new StringBuilder();
        text.Append(CultureInfo.InvariantCulture, $"{{\"quant_type\": \"{Type.Name}\", \"blocksize\": {BlockSize}, \"dtype\": \"{DtypeNames.ToPython(Dtype)}\", ");
        text.Append(CultureInfo.InvariantCulture, $"\"shape\": [{string.Join(", ", Shape)}]");
        if (NestedOffset is { } offset)
        {
            text.Append(CultureInfo.InvariantCulture, $", \"nested_blocksize\": {BlockScales.NestedBlockSize}, \"nested_dtype\": \"float32\", ");
            text.Append(CultureInfo.InvariantCulture, $"\"nested_offset\": {PythonFloat(offset)}");
        }
        return Encoding.UTF8.GetBytes(text.Append('}').ToString());
    }

    /// <summary>Reads the text.</summary>
    /// <param name="name">The weight's name, for messages.</param>
    /// <param name="json">UTF-8.</param>
    /// <exception cref="QuantStateException">It is no such JSON.</exception>
    public static QuantStateJson Parse(string name, ReadOnlySpan<byte> json)
    {
        try
        {
            using var document = JsonDocument.Parse(json.ToArray());
            var root = document.RootElement;
            bool nested = root.TryGetProperty("nested_offset", out var offset);
            if (nested && root.GetProperty("nested_blocksize").GetInt32() is var size && size != BlockScales.NestedBlockSize)
                throw new QuantStateException(name, $"its statistics are in blocks of {size}, expected {BlockScales.NestedBlockSize}.");
            return new QuantStateJson(
                new QuantType(root.GetProperty("quant_type").GetString()!), root.GetProperty("blocksize").GetInt32(),
                DtypeNames.FromPython(name, root.GetProperty("dtype").GetString()!),
                [.. root.GetProperty("shape").EnumerateArray().Select(e => e.GetInt64())], nested ? (float)offset.GetDouble() : null);
        }
        catch (Exception e) when (e is JsonException or KeyNotFoundException or InvalidOperationException or FormatException)
        {
            throw new QuantStateException(name, $"its quant_state is not bitsandbytes' JSON ({e.Message.TrimEnd('.')}).", e);
        }
    }

    /// <summary>Python's repr of the value widened to double: shortest text that reads back, an exponent below 1e-4 and from 1e16 on.</summary>
    internal static string PythonFloat(float value)
    {
        string text = ((double)value).ToString("R", CultureInfo.InvariantCulture);
        int e = text.IndexOf('E', StringComparison.Ordinal);
        if (e < 0) return text.Contains('.', StringComparison.Ordinal) ? text : text + ".0";
        int exponent = int.Parse(text.AsSpan(e + 1), NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture);
        if (exponent is > 0 and < 16) return ((decimal)(double)value).ToString("0.0", CultureInfo.InvariantCulture);
        return $"{text[..e]}e{(exponent < 0 ? '-' : '+')}{Math.Abs(exponent):00}";
    }
}
