namespace Peft.Llava;

/// <summary>What happens with a sample that has nothing to learn.</summary>
public enum UnsupervisedPolicy
{
    /// <summary>It is refused by name. This is the default: a run that learns nothing should not start.</summary>
    Fail,

    /// <summary>It is kept with no label, as LLaVA does.</summary>
    Keep,
}

/// <summary>What happens with an image that is missing or cannot be decoded.</summary>
public enum BadImagePolicy
{
    /// <summary>It is refused by name. This is the default.</summary>
    Fail,

    /// <summary>A black picture takes its place, so that order and batches stay as they are.</summary>
    Blank,
}

/// <summary>How samples are encoded.</summary>
public sealed record DataOptions
{
    /// <summary>
    /// What equals LLaVA's own data side, slips included: its labels, samples without labels kept, a zero picture for text-only samples, and
    /// ids equal to the padding id left out of the sequence.
    /// </summary>
    public static DataOptions LlavaExact { get; } = new()
    {
        Labels = LabelMode.LlavaExact,
        Unsupervised = UnsupervisedPolicy.Keep,
        ZeroImageForTextOnly = true,
        MaskPaddingIds = true,
        CheckPlaceholders = false,
        Records = RecordChecks.None,
    };

    /// <summary>Which labels.</summary>
    public LabelMode Labels { get; init; } = LabelMode.Spans;

    /// <summary>Samples without a label.</summary>
    public UnsupervisedPolicy Unsupervised { get; init; } = UnsupervisedPolicy.Fail;

    /// <summary>Images that are missing or cannot be decoded.</summary>
    public BadImagePolicy BadImages { get; init; } = BadImagePolicy.Fail;

    /// <summary>
    /// Whether a sample must have one placeholder per image before anything is encoded; LLaVA drops an image without a placeholder, and
    /// stops at a placeholder without an image.
    /// </summary>
    public bool CheckPlaceholders { get; init; } = true;

    /// <summary>What is checked of each record while a file is read.</summary>
    public RecordChecks Records { get; init; } = RecordChecks.Default;

    /// <summary>Whether text-only samples get a zero picture, which LLaVA's tower and projector then run on.</summary>
    public bool ZeroImageForTextOnly { get; init; }

    /// <summary>
    /// Whether positions whose id is the padding id are taken out of the sequence (LLaVA's <c>attention_mask = ids != pad</c>): with
    /// <c>&lt;unk&gt;</c> as padding, a literal <c>&lt;unk&gt;</c> in the text then disappears.
    /// </summary>
    public bool MaskPaddingIds { get; init; }

    /// <summary>Whether <c>&lt;im_start&gt;</c> and <c>&lt;im_end&gt;</c> go around an image (<c>mm_use_im_start_end</c>); null for what the processor's model was trained with.</summary>
    public bool? UseImageStartEnd { get; init; }

    internal RecordChecks RecordChecksInForce => CheckPlaceholders ? Records : Records & ~RecordChecks.Placeholders;
}
