namespace Peft.Llava;

/// <summary>Token ids and, for each, the part of the text it stands for.</summary>
/// <param name="Ids">The ids, one per token.</param>
/// <param name="Spans">
/// The UTF-16 span of each token. Byte tokens of one character all have the character's span; a token that is the dummy space alone has
/// an empty span; BOS and EOS have <see cref="TextSpan.None"/>.
/// </param>
public sealed record TokenizedText(IReadOnlyList<int> Ids, IReadOnlyList<TextSpan> Spans)
{
    /// <summary>Number of tokens.</summary>
    public int Count => Ids.Count;
}
