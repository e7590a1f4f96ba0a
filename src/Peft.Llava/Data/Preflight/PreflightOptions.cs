namespace Peft.Llava;

/// <summary>What a preflight looks at.</summary>
public sealed record PreflightOptions
{
    /// <summary>Threads.</summary>
    public int Workers { get; init; } = Environment.ProcessorCount;

    /// <summary>Whether images are decoded, which finds damaged ones, or only looked for.</summary>
    public bool DecodeImages { get; init; } = true;

    /// <summary>Features that one tile of an image becomes (576 for LLaVA 1.5), for lengths; 0 to count an image as one.</summary>
    public int FeaturesPerTile { get; init; }

    /// <summary>The longest sample, images included; null for the tokenizer's limit.</summary>
    public int? MaxLength { get; init; }

    /// <summary>The options for a model: its features per tile.</summary>
    /// <param name="config">The model's configuration, with the tower's sizes.</param>
    /// <param name="maxLength">The longest sample of the training, images included; null for the configuration's, and the tokenizer's where it has none.</param>
    public static PreflightOptions For(LlavaConfig config, int? maxLength = null)
    {
        ArgumentNullException.ThrowIfNull(config);
        return new PreflightOptions { FeaturesPerTile = config.FeaturesPerTile, MaxLength = maxLength ?? config.MaxLength };
    }
}

/// <summary>How far a preflight is.</summary>
/// <param name="Done">Samples examined.</param>
/// <param name="Total">Samples of the data set.</param>
/// <param name="Findings">Findings so far.</param>
public readonly record struct PreflightProgress(int Done, int Total, int Findings);

/// <summary>What happens with samples in which a preflight found errors.</summary>
public enum PreflightPolicy
{
    /// <summary>The run does not start.</summary>
    Fail,

    /// <summary>They are left out, before any order of samples is drawn.</summary>
    Skip,

    /// <summary>
    /// A black picture, as large as the tower's input, takes the place of an image at fault, so that the number and the order of samples stay. An
    /// error of the text still fails.
    /// </summary>
    Blank,
}
