namespace Peft.Llava;

/// <summary>How text is generated. The defaults are greedy decoding until an end token.</summary>
public sealed record GenerationOptions
{
    /// <summary>The most tokens to generate per sample.</summary>
    public int MaxNewTokens { get; init; } = 256;

    /// <summary>The ids that end a sample; null for the configuration's, empty for none.</summary>
    public IReadOnlyList<int>? EosTokenIds { get; init; }

    /// <summary>Divides positive and multiplies negative scores of ids that have been seen; 1 for none.</summary>
    public double RepetitionPenalty { get; init; } = 1;

    /// <summary>
    /// Which ids <see cref="RepetitionPenalty"/> counts as seen; null for what the layout's reference does.
    /// </summary>
    public PenaltyScope? PenaltyScope { get; init; }

    /// <summary>Null for greedy decoding; otherwise how tokens are drawn.</summary>
    public SamplingOptions? Sampling { get; init; }

    /// <summary>
    /// LLaVA's way with a batch whose merged rows are padded on the right (<c>tokenizer_padding_side</c> right, as real checkpoints have it): the first
    /// token of a shorter row is read at its last, padded position. Off, every row's first token is read at its own last token.
    /// </summary>
    public bool ReadFirstTokenAtPadding { get; init; }

    /// <summary>Keep the scores of each step (after all processing) in <see cref="GenerationResult.Scores"/>.</summary>
    public bool KeepScores { get; init; }

    /// <summary>Asked after each new token of a sample, with its generated ids; true ends the sample. Null for none.</summary>
    public Func<int, IReadOnlyList<int>, bool>? ShouldStop { get; init; }

    /// <summary>Told after each step, for streaming; null for none.</summary>
    public Action<GenerationStep>? OnStep { get; init; }
}

/// <summary>How tokens are drawn.</summary>
public sealed record SamplingOptions
{
    /// <summary>Scores are divided by it.</summary>
    public double Temperature { get; init; } = 1;

    /// <summary>Only the best so many ids (and their ties) can be drawn; 0 for all.</summary>
    public int TopK { get; init; }

    /// <summary>Only the smallest set of best ids that has this probability can be drawn; 1 for all.</summary>
    public double TopP { get; init; } = 1;

    /// <summary>Seed of the draws: the same seed gives the same text.</summary>
    public long Seed { get; init; }
}

/// <summary>Which ids the repetition penalty counts as seen.</summary>
public enum PenaltyScope
{
    /// <summary>Generated ids, and one BOS: LLaVA generates from embeddings, so that its prompt's ids are unknown.</summary>
    Generated,

    /// <summary>The prompt's ids as well, the image id included: transformers' LLaVA.</summary>
    PromptAndGenerated,
}

/// <summary>One step of a generation.</summary>
/// <param name="Index">0 for the first new token.</param>
/// <param name="TokenIds">The new id of each sample; null for a sample that had ended before.</param>
public sealed record GenerationStep(int Index, IReadOnlyList<int?> TokenIds);
