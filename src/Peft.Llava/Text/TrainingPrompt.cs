namespace Peft.Llava;

/// <summary>Writes a training conversation by a template, with the spans that are supervised.</summary>
/// <remarks>Source: the <c>preprocess</c> functions of LLaVA's train.py.</remarks>
public static class TrainingPrompt
{
    private const string Human = "human";
    private const string Model = "gpt";

    /// <summary>Writes a conversation.</summary>
    /// <param name="template">How.</param>
    /// <param name="turns">The conversation; where the format asks for alternating speakers, a first turn of the model's is left out.</param>
    /// <exception cref="ConversationException">The format cannot write these turns.</exception>
    public static RenderedPrompt Render(ConversationTemplate template, IReadOnlyList<ConversationTurn> turns)
    {
        ArgumentNullException.ThrowIfNull(template);
        ArgumentNullException.ThrowIfNull(turns);
        return template.TrainingFormat switch
        {
            TrainingFormat.Plain => RenderPlain(template, turns),
            TrainingFormat.V0 => RenderV0(template, turns),
            _ => RenderAlternating(template, turns),
        };
    }

    /// <summary>The parts of a V0 prompt: its header, then one text per turn. The prompt is these, and a last <c>### </c>.</summary>
    internal static IEnumerable<string> V0Parts(ConversationTemplate template, IReadOnlyList<ConversationTurn> turns)
        => turns.Select(turn => $"### {V0Role(template, turn)}: {turn.Value}\n").Prepend(template.System + "\n\n");

    private static string V0Role(ConversationTemplate template, ConversationTurn turn)
        => turn.From.Equals(Human, StringComparison.OrdinalIgnoreCase) ? template.UserRole
            : IsModelV0(turn) ? template.AssistantRole : "unknown";

    private static bool IsModelV0(ConversationTurn turn) => turn.From.Equals(Model, StringComparison.OrdinalIgnoreCase);

    private static RenderedPrompt RenderV0(ConversationTemplate template, IReadOnlyList<ConversationTurn> turns)
    {
        var writer = new PromptWriter();
        writer.Append(template.System + "\n\n");
        foreach (var turn in turns)
        {
            writer.Append($"### {V0Role(template, turn)}:");
            int start = writer.Position;
            writer.Append($" {turn.Value}\n");
            if (IsModelV0(turn)) writer.Supervise(start, writer.Position + "###".Length);
        }
        return writer.Append("### ").Finish();
    }

    private static RenderedPrompt RenderPlain(ConversationTemplate template, IReadOnlyList<ConversationTurn> turns)
    {
        if (turns.Count != 2) throw Refuse(template, $"it has {turns.Count} turns", "A caption sample has two: the image and the caption.");
        if (!turns[0].Value.Contains(LlamaTokenizer.ImagePlaceholder, StringComparison.Ordinal))
            throw Refuse(template, $"its first turn has no {LlamaTokenizer.ImagePlaceholder}", "Put the placeholder into the first turn.");
        string text = LlamaTokenizer.ImagePlaceholder + turns[1].Value + template.Separator;
        return new RenderedPrompt(text, [new TextSpan(LlamaTokenizer.ImagePlaceholder.Length, text.Length)]);
    }

    private static RenderedPrompt RenderAlternating(ConversationTemplate template, IReadOnlyList<ConversationTurn> turns)
    {
        if (turns.Count == 0) throw Refuse(template, "it has no turns", "Remove the sample, or give it a question and an answer.");
        var speakers = turns.Select((turn, i) => turn.From switch
        {
            Human => Speaker.User,
            Model => Speaker.Assistant,
            _ => throw Refuse(template, $"turn {i} is from '{turn.From}'", "Speakers are 'human' and 'gpt'."),
        }).ToList();
        int skip = speakers[0] == Speaker.User ? 0 : 1;
        var conversation = new Conversation(template);
        for (int i = skip; i < turns.Count; i++)
        {
            var expected = (i - skip) % 2 == 0 ? Speaker.User : Speaker.Assistant;
            if (speakers[i] != expected)
            {
                throw Refuse(template, $"turn {i} is from '{turns[i].From}' where '{(expected == Speaker.User ? Human : Model)}' should speak",
                    "Speakers must alternate: join or remove turns.");
            }
            conversation.Add(new ChatMessage(speakers[i], turns[i].Value));
        }
        return conversation.Render();
    }

    private static ConversationException Refuse(ConversationTemplate template, string reason, string next) => new(template.Name, reason, next);
}
