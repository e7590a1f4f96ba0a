using System.Text.Json;

namespace Peft.Llava;

/// <summary>Typed fields of a JSON record, with faults in words.</summary>
internal static class JsonFieldReader
{
    /// <summary>A text that is there.</summary>
    public static string Text(JsonElement record, string name)
    {
        if (!record.TryGetProperty(name, out var value)) throw new MalformedRecord(RecordProblem.MissingField, $"it has no {name}");
        return Text(value, name, $"{name} is");
    }

    /// <summary>A value that must be a text.</summary>
    /// <param name="value">The value.</param>
    /// <param name="what">Its name in messages.</param>
    /// <param name="whatIs">The beginning of "… is a number, not a text".</param>
    public static string Text(JsonElement value, string what, string whatIs)
    {
        if (value.ValueKind != JsonValueKind.String) throw new MalformedRecord(RecordProblem.WrongType, $"{whatIs} {Kind(value)}, not a text");
        return TextOrNull(value) ?? throw new MalformedRecord(RecordProblem.BadValue, $"{what} holds half of a surrogate pair");
    }

    /// <summary>The text, or null where it is none that .NET can hold.</summary>
    public static string? TextOrNull(JsonElement value)
    {
        try
        {
            return value.GetString();
        }
        catch (InvalidOperationException)
        {
            return null;
        }
    }

    /// <summary>What a value is, in words.</summary>
    public static string Kind(JsonElement value) => value.ValueKind switch
    {
        JsonValueKind.Null => "null",
        JsonValueKind.Object => "an object",
        JsonValueKind.Array => "an array",
        JsonValueKind.String => "a text",
        JsonValueKind.Number => "a number",
        _ => "true or false",
    };
}
