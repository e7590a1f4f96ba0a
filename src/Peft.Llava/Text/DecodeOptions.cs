namespace Peft.Llava;

/// <summary>How ids become text.</summary>
public sealed record DecodeOptions
{
    /// <summary>Leave special tokens out.</summary>
    public bool SkipSpecialTokens { get; init; }

    /// <summary>
    /// Remove the space before <c>. ? ! ,</c> and contractions (<c>clean_up_tokenization_spaces</c>); transformers 5 ignores it for
    /// these tokenizers, and so does that behaviour here.
    /// </summary>
    public bool CleanUpSpaces { get; init; }

    /// <summary>SentencePiece behaviours only: one space between runs of ordinary text and added tokens, as the peer does by default.</summary>
    public bool SpacesBetweenAddedTokens { get; init; } = true;
}
