using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace Peft.Core;

/// <summary>Functions of sixteen float32 lanes at a time, made for kernels that round their result to a tensor's dtype.</summary>
public static class VectorMath
{
    /// <summary>The largest of the sixteen lanes; NaN if one is.</summary>
    /// <param name="v">The lanes.</param>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static float Max(Vector512<float> v)
    {
        var half = Vector256.Max(v.GetLower(), v.GetUpper());
        var quarter = Vector128.Max(half.GetLower(), half.GetUpper());
        return MathF.Max(MathF.Max(quarter[0], quarter[1]), MathF.Max(quarter[2], quarter[3]));
    }

    /// <summary>
    /// e to the power of each lane, within 2 units in the last place; below -87.3 the result is the smallest normal number, above 88.3 it
    /// stays at e^88.3, NaN stays NaN. Half the time of <see cref="Vector512.Exp(Vector512{float})"/>.
    /// </summary>
    /// <param name="x">The exponents.</param>
    /// <remarks>Range reduction by ln 2 in two parts and the polynomial of Cephes' <c>expf</c>.</remarks>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<float> Exp(Vector512<float> x)
    {
        // x stands second: the native instructions return it when it is NaN.
        x = Vector512.MaxNative(Vector512.Create(-87.3365447f), Vector512.MinNative(Vector512.Create(88.3762626f), x));
        var n = Vector512.Floor(Vector512.MultiplyAddEstimate(x, Vector512.Create(1.44269504f), Vector512.Create(0.5f)));
        var r = Vector512.MultiplyAddEstimate(n, Vector512.Create(-0.693359375f), x);
        r = Vector512.MultiplyAddEstimate(n, Vector512.Create(2.12194440e-4f), r);
        var p = Vector512.Create(1.9875691500e-4f);
        p = Vector512.MultiplyAddEstimate(p, r, Vector512.Create(1.3981999507e-3f));
        p = Vector512.MultiplyAddEstimate(p, r, Vector512.Create(8.3334519073e-3f));
        p = Vector512.MultiplyAddEstimate(p, r, Vector512.Create(4.1665795894e-2f));
        p = Vector512.MultiplyAddEstimate(p, r, Vector512.Create(1.6666665459e-1f));
        p = Vector512.MultiplyAddEstimate(p, r, Vector512.Create(5.0000001201e-1f));
        p = Vector512.MultiplyAddEstimate(p, r * r, r + Vector512<float>.One);
        return p * ((Vector512.ConvertToInt32Native(n) + Vector512.Create(127)) << 23).AsSingle();
    }
}
