namespace Peft.Llava;

/// <summary>Checks a sample as <see cref="RecordChecks"/> asks.</summary>
internal static class RecordCheck
{
    private const string Human = "human";
    private const string Model = "gpt";

    /// <exception cref="MalformedRecord">The first fault found.</exception>
    public static void Check(LlavaSample sample, RecordChecks checks)
    {
        if (checks.HasFlag(RecordChecks.Speakers)) CheckSpeakers(sample.Turns);
        if (checks.HasFlag(RecordChecks.Values)) CheckValues(sample.Turns);
        if (checks.HasFlag(RecordChecks.Order)) CheckOrder(sample.Turns);
        if (checks.HasFlag(RecordChecks.Placeholders) && PlaceholderProblem(sample) is { } problem)
            throw new MalformedRecord(RecordProblem.PlaceholderCount, $"it {problem} (write one placeholder per image, or correct its image field)");
    }

    /// <summary>How many placeholders count, where that is not the number of images; as half a sentence, or null.</summary>
    public static string? PlaceholderProblem(LlavaSample sample)
    {
        int placeholders = sample.PlaceholderCount, images = sample.Images.Count;
        // LLaVA makes one placeholder of all that a turn has, so several in one turn mean its one image.
        if (images == 1) placeholders = sample.Turns.Count(t => t.Value.Contains(LlamaTokenizer.ImagePlaceholder, StringComparison.Ordinal));
        return placeholders == images ? null : $"has {images} image(s) but {placeholders} {LlamaTokenizer.ImagePlaceholder} placeholder(s)";
    }

    private static void CheckSpeakers(IReadOnlyList<ConversationTurn> turns)
    {
        for (int i = 0; i < turns.Count; i++)
            if (turns[i].From is not (Human or Model))
                throw new MalformedRecord(RecordProblem.UnknownSpeaker, $"turn {i} is from '{turns[i].From}' (speakers are '{Human}' and '{Model}')");
    }

    private static void CheckValues(IReadOnlyList<ConversationTurn> turns)
    {
        for (int i = 0; i < turns.Count; i++)
            if (PythonText.Strip(turns[i].Value).Length == 0)
                throw new MalformedRecord(RecordProblem.Empty, $"turn {i}, of '{turns[i].From}', is empty (give it text, or remove the record)");
    }

    private static void CheckOrder(IReadOnlyList<ConversationTurn> turns)
    {
        for (int i = 1; i < turns.Count; i++)
            if (turns[i].From == turns[i - 1].From)
                throw new MalformedRecord(RecordProblem.SpeakerOrder,
                    $"turns {i - 1} and {i} are both from '{turns[i].From}' (speakers must alternate: join or remove turns)");
    }
}
