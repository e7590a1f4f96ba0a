namespace Peft.Llava;

/// <summary>What a caller decides when loading a tokenizer; null leaves it to the files.</summary>
public sealed record TokenizerOptions
{
    /// <summary>
    /// Which peer to follow. Null: with a <c>tokenizer.model</c>, SentencePiece, legacy or not as <c>tokenizer_config.json</c> says (legacy
    /// where it says nothing, as transformers does); with a <c>tokenizer.json</c> alone, what that file describes.
    /// </summary>
    public TokenizerBehavior? Behavior { get; init; }

    /// <summary>The longest text in tokens (<c>model_max_length</c>).</summary>
    public int? ModelMaxLength { get; init; }

    /// <summary>Whether BOS goes before every text (<c>add_bos_token</c>).</summary>
    public bool? AddBos { get; init; }

    /// <summary>Read <c>tokenizer.json</c> even where a <c>tokenizer.model</c> lies beside it.</summary>
    public bool PreferJson { get; init; }
}
