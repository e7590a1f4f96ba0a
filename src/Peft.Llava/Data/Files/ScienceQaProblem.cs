using System.Text.Json;

namespace Peft.Llava;

/// <summary>A problem of ScienceQA, as far as prompts use it.</summary>
internal sealed record ScienceQaProblem(
    string Question, IReadOnlyList<string> Choices, int Answer, string Hint, string? Image, string Lecture, string Solution)
{
    /// <summary>Choices are lettered A to E.</summary>
    public const int MostChoices = 5;

    /// <summary>The letter of a choice.</summary>
    public static char Letter(int choice) => (char)('A' + choice);

    /// <exception cref="MalformedRecord">A field is missing or cannot be used.</exception>
    public static ScienceQaProblem Read(JsonElement record)
    {
        if (record.ValueKind != JsonValueKind.Object) throw new MalformedRecord(RecordProblem.NotAnObject, $"it is {JsonFieldReader.Kind(record)}, not an object");
        var choices = ReadChoices(record);
        return new ScienceQaProblem(JsonFieldReader.Text(record, "question"), choices, ReadAnswer(record, choices.Count), JsonFieldReader.Text(record, "hint"),
            ReadImage(record), Lines(JsonFieldReader.Text(record, "lecture")), Lines(JsonFieldReader.Text(record, "solution")));
    }

    private static List<string> ReadChoices(JsonElement record)
    {
        if (!record.TryGetProperty("choices", out var value)) throw new MalformedRecord(RecordProblem.MissingField, "it has no choices");
        if (value.ValueKind != JsonValueKind.Array) throw new MalformedRecord(RecordProblem.WrongType, $"choices is {JsonFieldReader.Kind(value)}, not an array");
        var choices = value.EnumerateArray().Select(c => JsonFieldReader.Text(c, "a choice", "a choice is")).ToList();
        if (choices.Count is 0 or > MostChoices)
            throw new MalformedRecord(RecordProblem.BadValue, $"it has {choices.Count} choices (letters go from A to {Letter(MostChoices - 1)}; remove the problem from the split)");
        return choices;
    }

    private static int ReadAnswer(JsonElement record, int choices)
    {
        if (!record.TryGetProperty("answer", out var value)) throw new MalformedRecord(RecordProblem.MissingField, "it has no answer");
        if (value.ValueKind != JsonValueKind.Number || !value.TryGetInt32(out int answer))
            throw new MalformedRecord(RecordProblem.WrongType, $"answer is {JsonFieldReader.Kind(value)}, not a whole number");
        if (answer < 0 || answer >= choices)
            throw new MalformedRecord(RecordProblem.BadValue, $"answer is {answer}, but there are {choices} choices, counted from 0");
        return answer;
    }

    private static string? ReadImage(JsonElement record)
    {
        if (!record.TryGetProperty("image", out var value) || value.ValueKind == JsonValueKind.Null) return null;
        string image = JsonFieldReader.Text(value, "image", "image is");
        return image.Length > 0 ? image
            : throw new MalformedRecord(RecordProblem.Empty, "image is an empty file name (write null where there is none)");
    }

    /// <summary>A backslash and an n stand for a new line there.</summary>
    private static string Lines(string text) => text.Replace("\\n", "\n", StringComparison.Ordinal);
}
