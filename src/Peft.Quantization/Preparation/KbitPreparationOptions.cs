namespace Peft.Quantization;

/// <summary>Which 16-bit parameters are cast to fp32 before training on a quantised base.</summary>
public enum KbitCasts
{
    /// <summary>Those of normalisation layers: what training needs, at a few kilobytes.</summary>
    NormsOnly,

    /// <summary>
    /// All, as PEFT's <c>prepare_model_for_kbit_training</c> does: embeddings, head, norms, biases, towers that were skipped. Costs twice
    /// their bytes, more than quantisation saves on a small model.
    /// </summary>
    EverythingAsPeft,
}

/// <summary>How a quantised model is prepared for training.</summary>
public sealed record KbitPreparationOptions
{
    /// <summary>What is cast to fp32.</summary>
    public KbitCasts Casts { get; init; }

    /// <summary>Whether gradient checkpointing is switched on.</summary>
    public bool UseGradientCheckpointing { get; init; } = true;

    /// <summary>Whether a parameter, by its path in memory, belongs to a normalisation layer; null for names that contain "norm".</summary>
    public Func<string, bool>? IsNorm { get; init; }
}
