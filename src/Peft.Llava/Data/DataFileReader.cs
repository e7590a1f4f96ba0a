using System.Text.Json;
using Peft.Core;

namespace Peft.Llava;

/// <summary>Reads LLaVA's data files record by record, collecting what is malformed.</summary>
internal static class DataFileReader
{
    public static IReadOnlyList<LlavaSample> Read(string path)
    {
        var samples = new List<LlavaSample>();
        var faults = new List<RecordFault>();
        try
        {
            using var stream = File.OpenRead(path);
            foreach (var record in JsonSerializer.DeserializeAsyncEnumerable<JsonElement>(stream).ToBlockingEnumerable())
            {
                int index = samples.Count + faults.Count;
                try
                {
                    samples.Add(ReadRecord(record, index));
                }
                catch (MalformedRecord e)
                {
                    faults.Add(new RecordFault(index, IdOf(record) ?? $"#{index}", e.Message));
                }
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new DataFileException(path, $"cannot be read ({e.Message}).", e);
        }
        catch (JsonException e)
        {
            throw new DataFileException(path, $"is no JSON array ({e.Message}).", e);
        }
        if (faults.Count > 0) throw new DataFileException(path, faults);
        return samples;
    }

    private static LlavaSample ReadRecord(JsonElement record, int index)
    {
        if (record.ValueKind != JsonValueKind.Object) throw new MalformedRecord($"it is {Kind(record)}, not an object");
        if (!record.TryGetProperty("conversations", out var conversations)) throw new MalformedRecord("it has no conversations");
        if (conversations.ValueKind != JsonValueKind.Array) throw new MalformedRecord($"conversations is {Kind(conversations)}, not an array");
        var turns = new List<ConversationTurn>();
        foreach (var turn in conversations.EnumerateArray())
            turns.Add(new ConversationTurn(TextOf(turn, "from", turns.Count), TextOf(turn, "value", turns.Count)));
        if (turns.Count == 0) throw new MalformedRecord("conversations is empty");
        return new LlavaSample(index, IdOf(record) ?? $"#{index}", Images(record), turns);
    }

    private static string TextOf(JsonElement turn, string name, int place)
    {
        if (turn.ValueKind != JsonValueKind.Object) throw new MalformedRecord($"turn {place} is {Kind(turn)}, not an object");
        if (!turn.TryGetProperty(name, out var value)) throw new MalformedRecord($"turn {place} has no '{name}'");
        if (value.ValueKind != JsonValueKind.String) throw new MalformedRecord($"'{name}' of turn {place} is {Kind(value)}, not a text");
        return Text(value, $"'{name}' of turn {place}");
    }

    private static List<string> Images(JsonElement record)
    {
        if (!record.TryGetProperty("image", out var image) || image.ValueKind == JsonValueKind.Null) return [];
        var entries = image.ValueKind == JsonValueKind.Array ? image.EnumerateArray().ToList() : [image];
        var files = new List<string>(entries.Count);
        foreach (var entry in entries)
        {
            if (entry.ValueKind != JsonValueKind.String) throw new MalformedRecord($"image is {Kind(entry)}, not a file name or a list of them");
            string file = Text(entry, "image");
            if (file.Length == 0) throw new MalformedRecord("image is an empty file name (leave the field out of text-only records)");
            files.Add(file);
        }
        return files;
    }

    private static string? IdOf(JsonElement record)
    {
        if (record.ValueKind != JsonValueKind.Object || !record.TryGetProperty("id", out var id)) return null;
        return id.ValueKind switch
        {
            JsonValueKind.String => TextOrNull(id),
            JsonValueKind.Number => id.GetRawText(),
            _ => null,
        };
    }

    private static string Text(JsonElement value, string what)
        => TextOrNull(value) ?? throw new MalformedRecord($"{what} holds half of a surrogate pair");

    private static string? TextOrNull(JsonElement value)
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

    private static string Kind(JsonElement value) => value.ValueKind switch
    {
        JsonValueKind.Null => "null",
        JsonValueKind.Object => "an object",
        JsonValueKind.Array => "an array",
        JsonValueKind.String => "a text",
        JsonValueKind.Number => "a number",
        _ => "true or false",
    };

    /// <summary>Leaves the reading of one record; never seen outside.</summary>
    private sealed class MalformedRecord(string problem) : PeftException(problem);
}
