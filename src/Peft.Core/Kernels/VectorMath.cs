using System.Runtime.CompilerServices;

namespace Peft.Core;

/// <summary>Functions of float32 lanes, made for kernels that round their result to a tensor's dtype.</summary>
public static class VectorMath
{
    /// <summary>
    /// e to the power of each lane, within 2 units in the last place; below -87.3 the result is the smallest normal number, above 88.3 it
    /// stays at e^88.3, NaN stays NaN. Half the time of <see cref="System.Runtime.Intrinsics.Vector512.Exp(System.Runtime.Intrinsics.Vector512{float})"/>.
    /// </summary>
    /// <param name="x">The exponents.</param>
    /// <remarks>Range reduction by ln 2 in two parts and the polynomial of Cephes' <c>expf</c>.</remarks>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static TVector Exp<TVector>(TVector x)
        where TVector : struct, IFloats<TVector>
    {
        // x stands second: the native instructions return it when it is NaN.
        x = TVector.MaxNative(TVector.All(-87.3365447f), TVector.MinNative(TVector.All(88.3762626f), x));
        TVector n = TVector.Floor(TVector.MultiplyAddEstimate(x, TVector.All(1.44269504f), TVector.All(0.5f)));
        TVector r = TVector.MultiplyAddEstimate(n, TVector.All(-0.693359375f), x);
        r = TVector.MultiplyAddEstimate(n, TVector.All(2.12194440e-4f), r);
        TVector p = TVector.All(1.9875691500e-4f);
        p = TVector.MultiplyAddEstimate(p, r, TVector.All(1.3981999507e-3f));
        p = TVector.MultiplyAddEstimate(p, r, TVector.All(8.3334519073e-3f));
        p = TVector.MultiplyAddEstimate(p, r, TVector.All(4.1665795894e-2f));
        p = TVector.MultiplyAddEstimate(p, r, TVector.All(1.6666665459e-1f));
        p = TVector.MultiplyAddEstimate(p, r, TVector.All(5.0000001201e-1f));
        p = TVector.MultiplyAddEstimate(p, r * r, r + TVector.All(1f));
        return p * TVector.PowerOfTwo(n);
    }
}
