using Peft.Core;

namespace Peft.Llava;

/// <summary>How a whole model is written.</summary>
public sealed record SavePretrainedOptions
{
    /// <summary>The names of a llava-hf model's tensors; the original layout has one kind of names only.</summary>
    public HuggingFaceKeyStyle KeyStyle { get; init; } = HuggingFaceKeyStyle.Classic;

    /// <summary>The most bytes of tensors in one file.</summary>
    public long MaxShardBytes { get; init; } = ShardedWriter.DefaultShardBytes;

    /// <summary>The tokenizer to write beside, with the tokens that were added to it; null for the companions' files.</summary>
    public LlamaTokenizer? Tokenizer { get; init; }

    /// <summary>
    /// A folder whose tokenizer, processor and generation files are copied, where it has them; null for the one that the model was loaded from, an empty text
    /// for none.
    /// </summary>
    public string? CompanionFolder { get; init; }
}
