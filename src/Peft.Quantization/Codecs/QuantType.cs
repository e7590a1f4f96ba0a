namespace Peft.Quantization;

/// <summary>The name of a 4-bit code, as bitsandbytes writes it (<c>nf4</c>, <c>fp4</c>).</summary>
/// <param name="Name">The name in lower case.</param>
public readonly record struct QuantType(string Name)
{
    /// <summary>4-bit NormalFloat: sixteen quantiles of the normal distribution (Dettmers et al., QLoRA, 2023).</summary>
    public static QuantType Nf4 { get; } = new("nf4");

    /// <summary>4-bit float: sign, two exponent bits, one mantissa bit.</summary>
    public static QuantType Fp4 { get; } = new("fp4");

    /// <inheritdoc/>
    public override string ToString() => Name;
}
