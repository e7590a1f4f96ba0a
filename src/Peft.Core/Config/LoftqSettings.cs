namespace Peft.Core;

/// <summary>Settings of <see cref="LoraInit.Loftq"/> (PEFT's <c>loftq_config</c>).</summary>
/// <param name="Bits">Bits of the quantised base.</param>
/// <param name="Iterations">Rounds of quantising and fitting, at least 1.</param>
public sealed record LoftqSettings(int Bits = 4, int Iterations = 1);
