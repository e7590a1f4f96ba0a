namespace Peft.Llava;

/// <summary>The longest sequence of a training, image features included: one number for the text, the merged sequence and the files.</summary>
internal static class LengthLimit
{
    // Tokenizers without a limit write 1e30.
    private const int Unlimited = 1_000_000;

    /// <summary>What is given, or what model and tokenizer were made for.</summary>
    public static int Of(int? given, LlavaConfig config, LlamaTokenizer? tokenizer)
        => given ?? config.MaxLength ?? (tokenizer?.ModelMaxLength is { } own and < Unlimited ? own : config.Language.MaxPositions);
}
