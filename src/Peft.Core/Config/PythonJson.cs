using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace Peft.Core;

/// <summary>Writes JSON as Python's <c>json.dumps(value, indent=2)</c> does, byte for byte: the form of the peers' files.</summary>
public static class PythonJson
{
    /// <summary>Writes a value.</summary>
    /// <param name="value">The value; null is JSON's null.</param>
    /// <param name="sortKeys">Whether the fields of every object are sorted by name.</param>
    /// <returns>The text, without an ending line break; characters beyond ASCII are escaped.</returns>
    public static string Write(JsonNode? value, bool sortKeys = true)
    {
        var text = new StringBuilder();
        Append(text, value, sortKeys, 0);
        return text.ToString();
    }

    /// <summary>A floating-point number as Python writes it: always with a point or an exponent.</summary>
    /// <param name="value">The number.</param>
    /// <returns>A node that keeps this form.</returns>
    public static JsonNode Float(double value)
    {
        string text = value.ToString("R", CultureInfo.InvariantCulture).Replace('E', 'e');
        // The two change to an exponent at different sizes; Python does so at 1e16.
        if (Math.Abs(value) is >= 1e15 and < 1e16 && value == Math.Floor(value)) text = value.ToString("F0", CultureInfo.InvariantCulture);
        else if (Math.Abs(value) >= 1e16 && !text.Contains('e', StringComparison.Ordinal)) text = WithExponent(text);
        if (!text.Contains('.', StringComparison.Ordinal) && !text.Contains('e', StringComparison.Ordinal)) text += ".0";
        return JsonNode.Parse(text)!;
    }

    /// <summary>A single-precision number as Python writes the shortest text that reads back as it: always with a point or an exponent.</summary>
    /// <param name="value">The number.</param>
    /// <returns>A node that keeps this form.</returns>
    public static JsonNode Single(float value)
        => Float(double.Parse(value.ToString("R", CultureInfo.InvariantCulture), CultureInfo.InvariantCulture));

    /// <summary>A whole number's digits in the form with an exponent.</summary>
    private static string WithExponent(string digits)
    {
        int sign = digits[0] == '-' ? 1 : 0;
        string exponent = $"e+{digits.Length - sign - 1}", shortest = digits.TrimEnd('0');
        return shortest.Length > sign + 1 ? shortest.Insert(sign + 1, ".") + exponent : shortest + exponent;
    }

    /// <summary>A number as Python writes it: without a point if it is whole.</summary>
    /// <param name="value">The number.</param>
    /// <returns>A node that keeps this form.</returns>
    public static JsonNode Number(double value)
        => value == Math.Floor(value) && Math.Abs(value) < 1e15 ? JsonValue.Create((long)value) : Float(value);

    private static void Append(StringBuilder text, JsonNode? value, bool sortKeys, int indent)
    {
        switch (value)
        {
            case null:
                text.Append("null");
                break;
            case JsonObject o when o.Count == 0:
                text.Append("{}");
                break;
            case JsonArray a when a.Count == 0:
                text.Append("[]");
                break;
            case JsonObject o:
                var fields = sortKeys ? o.OrderBy(f => f.Key, StringComparer.Ordinal) : o.AsEnumerable();
                AppendAll(text, '{', '}', indent, fields, f =>
                {
                    AppendString(text, f.Key);
                    text.Append(": ");
                    Append(text, f.Value, sortKeys, indent + 2);
                });
                break;
            case JsonArray a:
                AppendAll(text, '[', ']', indent, a, item => Append(text, item, sortKeys, indent + 2));
                break;
            case JsonValue v when v.GetValueKind() == JsonValueKind.String:
                AppendString(text, v.GetValue<string>());
                break;
            // A number that was read keeps its text; one that was put in as a floating-point number stays one, also where it is whole.
            case JsonValue v when v.GetValue<object>() is double number:
                text.Append(Float(number).ToJsonString());
                break;
            case JsonValue v when v.GetValue<object>() is float number:
                text.Append(Single(number).ToJsonString());
                break;
            default:
                text.Append(value.ToJsonString());
                break;
        }
    }

    private static void AppendAll<T>(StringBuilder text, char open, char close, int indent, IEnumerable<T> items, Action<T> append)
    {
        text.Append(open);
        bool first = true;
        foreach (var item in items)
        {
            text.Append(first ? "\n" : ",\n").Append(' ', indent + 2);
            append(item);
            first = false;
        }
        text.Append('\n').Append(' ', indent).Append(close);
    }

    private static void AppendString(StringBuilder text, string value)
    {
        text.Append('"');
        foreach (char c in value)
        {
            _ = c switch
            {
                '"' => text.Append("\\\""),
                '\\' => text.Append("\\\\"),
                '\n' => text.Append("\\n"),
                '\r' => text.Append("\\r"),
                '\t' => text.Append("\\t"),
                '\b' => text.Append("\\b"),
                '\f' => text.Append("\\f"),
                < ' ' or > '~' => text.Append(CultureInfo.InvariantCulture, $"\\u{(int)c:x4}"),
                _ => text.Append(c),
            };
        }
        text.Append('"');
    }
}
