using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>The gate of <see cref="LlamaMlp"/>.</summary>
public static class SwiGlu
{
    /// <summary>silu(gate) * up, each step rounded to the dtype of its input.</summary>
    /// <param name="gate">(N, F).</param>
    /// <param name="up">(N, F).</param>
    /// <returns>A fresh (N, F) tensor in the current dispose scope.</returns>
    public static Tensor Apply(Tensor gate, Tensor up)
    {
        using var scope = NewDisposeScope();
        return (nn.functional.silu(gate) * up).MoveToOuterDisposeScope();
    }
}
