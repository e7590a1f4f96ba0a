namespace Peft.Llava;

/// <summary>Makes ids and labels of training conversations.</summary>
/// <param name="tokenizer">The tokenizer.</param>
/// <param name="template">How conversations are written.</param>
/// <param name="mode">Which labels.</param>
public sealed class LabelBuilder(LlamaTokenizer tokenizer, ConversationTemplate template, LabelMode mode = LabelMode.Spans)
{
    /// <summary>The label of a position that is not learned.</summary>
    public const int Ignored = -100;

    /// <summary>The tokenizer.</summary>
    public LlamaTokenizer Tokenizer { get; } = tokenizer;

    /// <summary>How conversations are written.</summary>
    public ConversationTemplate Template { get; } = template;

    /// <summary>Which labels.</summary>
    public LabelMode Mode { get; } = mode;

    /// <summary>Encodes and labels a conversation.</summary>
    /// <param name="turns">The conversation, as <see cref="MultimodalText.Prepare"/> left it.</param>
    /// <param name="hasImage">
    /// Whether images belong to it: then <c>&lt;image&gt;</c> becomes a placeholder and nothing is cut here. A text without images is cut to
    /// the tokenizer's <see cref="LlamaTokenizer.ModelMaxLength"/>.
    /// </param>
    /// <exception cref="ConversationException">The template cannot write the conversation, or LLaVA's rule cannot label it.</exception>
    public LabeledText Build(IReadOnlyList<ConversationTurn> turns, bool hasImage)
    {
        var prompt = TrainingPrompt.Render(Template, turns);
        bool plain = Template.TrainingFormat == TrainingFormat.Plain;
        var tokens = hasImage || plain ? Tokenizer.TokenizeWithImages(prompt.Text) : Cut(Tokenizer.Tokenize(prompt.Text));
        if (Mode == LabelMode.LlavaExact) return new LlavaLabels(Tokenizer, Template, hasImage).Label(prompt, turns, tokens.Ids);
        var labels = new int[tokens.Count];
        for (int i = 0; i < labels.Length; i++)
        {
            var span = tokens.Spans[i];
            labels[i] = prompt.Supervised.Any(span.Overlaps) ? tokens.Ids[i] : Ignored;
        }
        return new LabeledText(prompt, tokens.Ids, labels);
    }

    private TokenizedText Cut(TokenizedText tokens)
        => Tokenizer.ModelMaxLength is { } most && tokens.Count > most
            ? new TokenizedText([.. tokens.Ids.Take(most)], [.. tokens.Spans.Take(most)])
            : tokens;
}
