namespace Peft.Quantization;

/// <summary>Where adapters trained on a quantised base are merged into.</summary>
public enum MergeTarget
{
    /// <summary>
    /// A dense weight: the decoded one plus the adapter. What was trained is what comes out; the model is as large as an unquantised one.
    /// </summary>
    DequantizedBase,

    /// <summary>The original, unquantised weight plus the adapter: better weights than those the adapter was trained on, so outputs move a little.</summary>
    OriginalBase,

    /// <summary>The quantised form again: small, but quantising the sum eats part of what was learned.</summary>
    Requantized,
}
