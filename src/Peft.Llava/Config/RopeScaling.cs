namespace Peft.Llava;

/// <summary>Stretching of the rotary position embedding.</summary>
/// <param name="Kind">The rule.</param>
/// <param name="Factor">The factor, at least 1.</param>
public sealed record RopeScaling(RopeScalingKind Kind, double Factor);

/// <summary>The rules of <see cref="RopeScaling"/>.</summary>
public enum RopeScalingKind
{
    /// <summary>Positions are divided by the factor.</summary>
    Linear,

    /// <summary>The base grows once the sequence is longer than <c>max_position_embeddings</c> (dynamic NTK).</summary>
    Dynamic,
}
