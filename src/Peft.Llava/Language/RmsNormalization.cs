using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>The function of <see cref="RmsNorm"/>.</summary>
public static class RmsNormalization
{
    /// <summary>
    /// x / rms(x) in float32, rounded to x's dtype, times the weight. The weight multiplies after the rounding, so a float32 weight makes a
    /// float32 result of a bfloat16 input.
    /// </summary>
    /// <param name="input">(..., D).</param>
    /// <param name="weight">(D).</param>
    /// <param name="epsilon">Added to the mean square, inside the root.</param>
    /// <returns>A fresh (..., D) tensor of the promoted dtype, in the current dispose scope.</returns>
    public static Tensor Apply(Tensor input, Tensor weight, double epsilon)
    {
        ArgumentNullException.ThrowIfNull(input);
        using var scope = NewDisposeScope();
        var x = input.to(ScalarType.Float32);
        var scale = x.square().mean([-1L], keepdim: true).add(epsilon).rsqrt();
        return (x * scale).to(input.dtype).mul(weight).MoveToOuterDisposeScope();
    }
}
