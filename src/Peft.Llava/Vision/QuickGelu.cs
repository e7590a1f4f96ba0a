using Peft.Core;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>CLIP's activation.</summary>
public static class QuickGelu
{
    /// <summary>x * sigmoid(1.702 x), each step rounded to the input's dtype.</summary>
    /// <param name="input">(...).</param>
    /// <returns>A fresh tensor of the same shape in the current dispose scope.</returns>
    public static Tensor Apply(Tensor input)
    {
        ArgumentNullException.ThrowIfNull(input);
        using var scope = NewDisposeScope();
        return (input * TensorMath.Multiply(input, 1.702).sigmoid()).MoveToOuterDisposeScope();
    }
}
