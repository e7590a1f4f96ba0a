using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>Cosine and sine of each token's angles, one half of the head each.</summary>
/// <param name="Cos">(N, 1, d/2).</param>
/// <param name="Sin">(N, 1, d/2).</param>
public sealed record RotaryTables(Tensor Cos, Tensor Sin);
