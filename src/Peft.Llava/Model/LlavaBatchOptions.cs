namespace Peft.Llava;

/// <summary>How <see cref="LlavaBatchBuilder"/> reads its samples. The defaults are what is right; the others are what LLaVA does.</summary>
public sealed record LlavaBatchOptions
{
    /// <summary>
    /// LLaVA's rule that a text-only sample brings and uses up one (dummy) image. Off: it has none, and brings none. On: every text-only
    /// sample must bring exactly one image, whose tiles stay in the batch, so that the tower and the projector run on them as LLaVA's do
    /// (with <see cref="ForwardOptions.ProjectorAlwaysTakesPart"/> the projector then gets a zero gradient).
    /// </summary>
    public bool TextOnlySamplesOwnAnImage { get; init; }

    /// <summary>
    /// Whether <c>mm_patch_merge_type</c> applies. Null: where the configuration's aspect ratio is <c>anyres</c>. LLaVA decides by the Python
    /// type of its argument: a list of images is merged, one tensor (tiles, 3, S, S) is not.
    /// </summary>
    public bool? MergeTiles { get; init; }

    /// <summary>The padding side of the rectangular form; null for the configuration's.</summary>
    public PaddingSide? PaddingSide { get; init; }

    /// <summary>The longest merged sequence; null for the configuration's <c>tokenizer_model_max_length</c>.</summary>
    public int? MaxLength { get; init; }

    /// <summary>
    /// Whether a sequence that is too long is cut at its end, wherever that is (LLaVA), or refused by a <see cref="BatchException"/>.
    /// </summary>
    public bool Truncate { get; init; } = true;
}
