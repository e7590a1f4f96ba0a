namespace Peft.Llava;

/// <summary>Puts image placeholders where the model was trained to see them (LLaVA's <c>preprocess_multimodal</c>).</summary>
public static class MultimodalText
{
    /// <summary>The token before an image, where the model has it (<c>mm_use_im_start_end</c>).</summary>
    public const string ImageStart = "<im_start>";

    /// <summary>The token after an image, where the model has it.</summary>
    public const string ImageEnd = "<im_end>";

    /// <summary>
    /// Rewrites a conversation: a turn's placeholder moves to its front, on a line of its own, and is wrapped in tags or tokens where the
    /// template or model uses them.
    /// </summary>
    /// <param name="turns">The conversation; not changed.</param>
    /// <param name="template">The template.</param>
    /// <param name="useStartEndTokens">Whether <see cref="ImageStart"/> and <see cref="ImageEnd"/> go around an image.</param>
    /// <param name="keepPlaces">
    /// Leave the placeholders where they are, and each of them: for samples with several images, whose order the text refers to. LLaVA
    /// itself makes one placeholder of all in a turn.
    /// </param>
    public static IReadOnlyList<ConversationTurn> Prepare(
        IReadOnlyList<ConversationTurn> turns, ConversationTemplate template, bool useStartEndTokens = false, bool keepPlaces = false)
    {
        ArgumentNullException.ThrowIfNull(turns);
        ArgumentNullException.ThrowIfNull(template);
        const string image = LlamaTokenizer.ImagePlaceholder;
        return [.. turns.Select(turn =>
        {
            string value = turn.Value;
            if (!value.Contains(image, StringComparison.Ordinal)) return turn;
            if (!keepPlaces)
                value = PythonText.Strip($"{image}\n{PythonText.Strip(value.Replace(image, "", StringComparison.Ordinal))}");
            if (template.UsesImageTags) value = value.Replace(image, $"<Image>{image}</Image>", StringComparison.Ordinal);
            if (useStartEndTokens) value = value.Replace(image, ImageStart + image + ImageEnd, StringComparison.Ordinal);
            return turn with { Value = value };
        })];
    }
}
