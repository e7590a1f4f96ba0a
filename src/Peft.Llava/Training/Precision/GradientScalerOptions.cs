namespace Peft.Llava;

/// <summary>How a loss is scaled in float16; the defaults are those of <c>torch.cuda.amp.GradScaler</c>.</summary>
public sealed record GradientScalerOptions
{
    /// <summary>The first scale.</summary>
    public double InitialScale { get; init; } = 65536;

    /// <summary>What the scale is multiplied with after <see cref="GrowthInterval"/> good steps in a row; above 1.</summary>
    public double GrowthFactor { get; init; } = 2;

    /// <summary>What the scale is multiplied with after a step whose gradients were not finite; between 0 and 1.</summary>
    public double BackoffFactor { get; init; } = 0.5;

    /// <summary>Good steps in a row after which the scale grows.</summary>
    public int GrowthInterval { get; init; } = 2000;

    /// <summary>
    /// The scale below which a training ends with <see cref="NonFiniteLossException"/>: no scale can help then. PyTorch has no such bound and goes
    /// on skipping. The default is the smallest normal number of float16.
    /// </summary>
    public double MinimumScale { get; init; } = 1 / 16384.0;

    /// <summary>All that is wrong with the values: one sentence each.</summary>
    public IReadOnlyList<string> Problems()
    {
        var problems = new List<string>();
        if (InitialScale is not (> 0 and <= float.MaxValue)) problems.Add($"InitialScale {InitialScale:R} is not a positive float32 number");
        if (GrowthFactor is not (> 1 and < double.PositiveInfinity)) problems.Add($"GrowthFactor {GrowthFactor:R} is not above 1");
        if (BackoffFactor is not (> 0 and < 1)) problems.Add($"BackoffFactor {BackoffFactor:R} is not between 0 and 1");
        if (GrowthInterval < 1) problems.Add($"GrowthInterval {GrowthInterval} is not positive");
        if (!(MinimumScale >= 0 && MinimumScale <= InitialScale))
            problems.Add($"MinimumScale {MinimumScale:R} is not between 0 and InitialScale {InitialScale:R}");
        return problems;
    }
}
