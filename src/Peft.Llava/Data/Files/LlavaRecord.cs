using System.Text.Json;

namespace Peft.Llava;

/// <summary>Reads one record of LLaVA's format: <c>id</c>, <c>image</c> and <c>conversations</c>.</summary>
internal static class LlavaRecord
{
    /// <exception cref="MalformedRecord">The record is not of that form, or fails a check.</exception>
    public static LlavaSample Read(JsonElement record, int index, RecordChecks checks)
    {
        if (record.ValueKind != JsonValueKind.Object) throw new MalformedRecord(RecordProblem.NotAnObject, $"it is {JsonFieldReader.Kind(record)}, not an object");
        if (!record.TryGetProperty("conversations", out var conversations)) throw new MalformedRecord(RecordProblem.MissingField, "it has no conversations");
        if (conversations.ValueKind != JsonValueKind.Array)
            throw new MalformedRecord(RecordProblem.WrongType, $"conversations is {JsonFieldReader.Kind(conversations)}, not an array");
        var turns = new List<ConversationTurn>();
        foreach (var turn in conversations.EnumerateArray())
            turns.Add(new ConversationTurn(TextOf(turn, "from", turns.Count), TextOf(turn, "value", turns.Count)));
        if (turns.Count == 0) throw new MalformedRecord(RecordProblem.Empty, "conversations is empty");
        if (record.TryGetProperty("id", out var id) && id.ValueKind is not (JsonValueKind.String or JsonValueKind.Number or JsonValueKind.Null))
            throw new MalformedRecord(RecordProblem.WrongType, $"id is {JsonFieldReader.Kind(id)}, not a text or a number");
        var sample = new LlavaSample(index, IdOf(record) ?? $"#{index}", Images(record), turns);
        RecordCheck.Check(sample, checks);
        return sample;
    }

    /// <summary>The record's id, or null where it has none that can be read.</summary>
    public static string? IdOf(JsonElement record)
    {
        if (record.ValueKind != JsonValueKind.Object || !record.TryGetProperty("id", out var id)) return null;
        return id.ValueKind switch
        {
            JsonValueKind.String => JsonFieldReader.TextOrNull(id),
            JsonValueKind.Number => id.GetRawText(),
            _ => null,
        };
    }

    private static string TextOf(JsonElement turn, string name, int place)
    {
        if (turn.ValueKind != JsonValueKind.Object)
            throw new MalformedRecord(RecordProblem.WrongType, $"turn {place} is {JsonFieldReader.Kind(turn)}, not an object");
        if (!turn.TryGetProperty(name, out var value)) throw new MalformedRecord(RecordProblem.MissingField, $"turn {place} has no '{name}'");
        return JsonFieldReader.Text(value, $"'{name}' of turn {place}", $"'{name}' of turn {place} is");
    }

    private static List<string> Images(JsonElement record)
    {
        if (!record.TryGetProperty("image", out var image) || image.ValueKind == JsonValueKind.Null) return [];
        var entries = image.ValueKind == JsonValueKind.Array ? image.EnumerateArray().ToList() : [image];
        var files = new List<string>(entries.Count);
        foreach (var entry in entries)
        {
            if (entry.ValueKind != JsonValueKind.String)
                throw new MalformedRecord(RecordProblem.WrongType, $"image is {JsonFieldReader.Kind(entry)}, not a file name or a list of them");
            string file = JsonFieldReader.Text(entry, "image", "image is");
            if (file.Length == 0)
                throw new MalformedRecord(RecordProblem.Empty, "image is an empty file name (leave the field out of text-only records)");
            files.Add(file);
        }
        return files;
    }
}
