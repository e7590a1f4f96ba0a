using System.Text.Json;

namespace Peft.Llava;

/// <summary>Reads one record of LLaVA's format: <c>id</c>, <c>image</c> and <c>conversations</c>.</summary>
internal static class LlavaRecord
{
    /// <exception cref="MalformedRecord">The record is not of that form, or fails a check.</exception>
    public static LlavaSample Read(JsonElement record, int index, RecordChecks checks)
    {
        if (record.ValueKind != JsonValueKind.Object) throw new MalformedRecord(RecordProblem.NotAnObject, $"it is {JsonFieldReader.Kind(record)}, not an object");
        if (!record.TryGetProperty("conversations", out var conversations)) throw new MalformedRecord(RecordProblem.MissingField, "it has no conversations" + Hint(record));
        if (conversations.ValueKind != JsonValueKind.Array)
            throw new MalformedRecord(RecordProblem.WrongType, $"conversations is {JsonFieldReader.Kind(conversations)}, not an array");
        var turns = new List<ConversationTurn>();
        foreach (var turn in conversations.EnumerateArray())
            turns.Add(new ConversationTurn(TextOf(turn, "from", turns.Count), TextOf(turn, "value", turns.Count)));
        if (turns.Count == 0) throw new MalformedRecord(RecordProblem.Empty, "conversations is empty");
        if (record.TryGetProperty("id", out var id) && id.ValueKind is not (JsonValueKind.String or JsonValueKind.Number or JsonValueKind.Null))
            throw new MalformedRecord(RecordProblem.WrongType, $"id is {JsonFieldReader.Kind(id)}, not a text or a number");
        var sample = new LlavaSample(index, IdOf(record) ?? $"#{index}", Images(record), turns);
        try
        {
            RecordCheck.Check(sample, checks);
        }
        catch (MalformedRecord e) when (e.Kind == RecordProblem.PlaceholderCount && !record.TryGetProperty("image", out _) && Near(record, "image") is { } near)
        {
            throw new MalformedRecord(e.Kind, $"{e.Message}; it has no 'image', and the nearest key is '{near}'");
        }
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
        if (!turn.TryGetProperty(name, out var value)) throw new MalformedRecord(RecordProblem.MissingField, $"turn {place} has no '{name}'{TurnHint(turn, name)}");
        return JsonFieldReader.Text(value, $"'{name}' of turn {place}", $"'{name}' of turn {place} is");
    }

    private static string? Near(JsonElement record, string name)
    {
        try
        {
            return NearestText.FindNear(name, record.EnumerateObject().Select(p => p.Name));
        }
        catch (InvalidOperationException)
        {
            return null;        // a key that holds half of a surrogate pair
        }
    }

    private static string Hint(JsonElement record)
        => Near(record, "conversations") is { } near ? $" (the nearest key is '{near}')"
            : record.TryGetProperty("messages", out _) ? " but messages, the form of chat services (write \"conversations\": [{\"from\": \"human\", \"value\": \"...\"}, {\"from\": \"gpt\", \"value\": \"...\"}], and the picture's file as \"image\"; "
                + "read are LLaVA's JSON, JSON Lines of such records, and ScienceQA)"
            : "";

    private static string TurnHint(JsonElement turn, string name)
        => Near(turn, name) is { } near ? $" (the nearest key is '{near}')"
            : turn.TryGetProperty(name == "from" ? "role" : "content", out _) ? " (it has role or content, the form of chat services; write from, human or gpt, and value)"
            : "";

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
