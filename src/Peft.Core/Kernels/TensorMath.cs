using Peft.Core;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>
/// The operators with a factor that a training step calls thousands of times, with the factor's native object kept alive and ended at once.
/// </summary>
/// <remarks>
/// TorchSharp makes a native scalar for each such call (also for the 1 of <c>a + b</c>), hands out its bare pointer and leaves it to the finalizer.
/// A collection on another thread at that moment can free it while libtorch reads it: seen once as <c>Scalar.toFloat … Expected false to be
/// true</c> on a machine under load. Here no finalizer is involved.
/// </remarks>
public static class TensorMath
{
    private static readonly Scalar One = 1;

    /// <summary><c>left + right</c>.</summary>
    /// <param name="left">Any tensor.</param>
    /// <param name="right">One that broadcasts with it.</param>
    /// <returns>A fresh tensor in the current dispose scope.</returns>
    public static Tensor Add(Tensor left, Tensor right)
    {
        ArgumentNullException.ThrowIfNull(left);
        return left.add(right, One);
    }

    /// <summary><c>target += other</c>.</summary>
    /// <param name="target">Changed in place.</param>
    /// <param name="other">One that broadcasts to it.</param>
    public static void AddTo(Tensor target, Tensor other)
    {
        ArgumentNullException.ThrowIfNull(target);
        target.add_(other, One);
    }

    /// <summary><c>x · factor</c>.</summary>
    /// <param name="x">Any tensor.</param>
    /// <param name="factor">The factor.</param>
    /// <returns>A fresh tensor in the current dispose scope.</returns>
    public static Tensor Multiply(Tensor x, double factor)
    {
        ArgumentNullException.ThrowIfNull(x);
        using Scalar scalar = factor;
        return x.mul(scalar);
    }

    /// <summary><c>target *= factor</c>.</summary>
    /// <param name="target">Changed in place.</param>
    /// <param name="factor">The factor.</param>
    /// <returns><paramref name="target"/> itself.</returns>
    public static Tensor Scale(Tensor target, double factor)
    {
        ArgumentNullException.ThrowIfNull(target);
        using Scalar scalar = factor;
        return target.mul_(scalar);
    }
}
