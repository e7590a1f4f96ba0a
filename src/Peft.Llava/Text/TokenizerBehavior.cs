namespace Peft.Llava;

/// <summary>
/// Which of the tokenizers that read the same LLaMA files is followed where they differ: the dummy space, the order of merges among
/// runs of spaces, and the text that ids give back.
/// </summary>
public enum TokenizerBehavior
{
    /// <summary>
    /// SentencePiece with <c>legacy=false</c>, what LLaVA 1.5 checkpoints ask for: one dummy space, before the whole text only, and none
    /// if the text begins with a special token.
    /// </summary>
    SentencePiece,

    /// <summary>SentencePiece with <c>legacy=true</c>: a dummy space before every piece of text, so also after every special token.</summary>
    SentencePieceLegacy,

    /// <summary>
    /// <c>LlamaTokenizerFast</c> of transformers 4: spaces as with <see cref="SentencePieceLegacy"/> whatever the folder says; decoding
    /// gives one U+FFFD for each byte of a run that is no UTF-8.
    /// </summary>
    Fast,

    /// <summary>transformers 5 with <c>legacy=false</c>: the dummy space is left out where the text begins with a space.</summary>
    Transformers5,

    /// <summary>transformers 5 with <c>legacy=true</c>: the same, but before every piece of text.</summary>
    Transformers5Legacy,
}
