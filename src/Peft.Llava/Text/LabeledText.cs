namespace Peft.Llava;

/// <summary>Which labels a training text gets.</summary>
public enum LabelMode
{
    /// <summary>
    /// From the tokens' offsets: what the assistant says, with its end token, is supervised; equal to LLaVA's labels wherever those are
    /// right. This is the default.
    /// </summary>
    Spans,

    /// <summary>As LLaVA computes them, with its slips: samples it drops, and positions it shifts. For runs that must equal its own.</summary>
    LlavaExact,
}

/// <summary>LLaVA counted another length than the ids have and ignores the sample (all its labels are -100).</summary>
/// <param name="Counted">The length it counted.</param>
/// <param name="Total">The number of ids that are no padding.</param>
public sealed record LabelMismatch(int Counted, int Total)
{
    /// <summary>LLaVA's own line.</summary>
    public override string ToString() => $"WARNING: tokenization mismatch: {Counted} vs. {Total}. (ignored)";
}

/// <summary>A training text as ids and labels.</summary>
/// <param name="Prompt">The text with its supervised spans.</param>
/// <param name="Ids">Token ids, -200 for an image.</param>
/// <param name="Labels">For each position its id where it is supervised, -100 elsewhere. An image inside a supervised part has -200.</param>
/// <param name="Mismatch">In <see cref="LabelMode.LlavaExact"/>, why LLaVA ignores the sample; else null.</param>
public sealed record LabeledText(RenderedPrompt Prompt, IReadOnlyList<int> Ids, IReadOnlyList<int> Labels, LabelMismatch? Mismatch = null)
{
    /// <summary>Number of positions with a label that are no image.</summary>
    public int SupervisedCount { get; } = Labels.Count(label => label >= 0);
}
