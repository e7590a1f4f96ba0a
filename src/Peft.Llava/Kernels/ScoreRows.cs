using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Peft.Llava;

/// <summary>The softmax of rows of float32 scores on the calling thread, forward and backward, in place.</summary>
internal static unsafe class ScoreRows
{
    /// <summary>Turns one row of scores into probabilities.</summary>
    /// <param name="row">The scores; those from <paramref name="seen"/> to <paramref name="length"/> become zero.</param>
    /// <param name="seen">Scores that count.</param>
    /// <param name="length">The row's length.</param>
    /// <param name="scale">Multiplies the scores.</param>
    /// <returns>The logarithm of the sum of the exponentials.</returns>
    public static float Softmax(float* row, int seen, int length, float scale)
    {
        var maxima = Vector256.Create(float.NegativeInfinity);
        int i = 0;
        for (; i + 8 <= seen; i += 8) maxima = Vector256.Max(maxima, Vector256.Load(row + i));
        float maximum = float.NegativeInfinity;
        for (int lane = 0; lane < 8; lane++) maximum = MathF.Max(maximum, maxima[lane]);
        for (; i < seen; i++) maximum = MathF.Max(maximum, row[i]);
        maximum *= scale;
        var (factor, shift, sums) = (Vector256.Create(scale), Vector256.Create(maximum), Vector256<float>.Zero);
        for (i = 0; i + 8 <= seen; i += 8)
        {
            var e = Exp(Vector256.Load(row + i) * factor - shift);
            e.Store(row + i);
            sums += e;
        }
        float sum = Vector256.Sum(sums);
        for (; i < seen; i++) sum += row[i] = MathF.Exp(row[i] * scale - maximum);
        float inverse = 1 / sum;
        for (i = 0; i + 8 <= seen; i += 8) (Vector256.Load(row + i) * inverse).Store(row + i);
        for (; i < seen; i++) row[i] *= inverse;
        new Span<float>(row + seen, length - seen).Clear();
        return maximum + MathF.Log(sum);
    }

    /// <summary>The probabilities once more from their saved sum, and the gradient of the unscaled scores.</summary>
    /// <param name="row">The scores on entry, the probabilities on return.</param>
    /// <param name="gradient">The gradient of the probabilities on entry, of the scores on return.</param>
    /// <param name="seen">Scores that count; the others become zero in both.</param>
    /// <param name="length">The rows' length.</param>
    /// <param name="scale">Multiplies the scores.</param>
    /// <param name="logSum">What <see cref="Softmax"/> returned.</param>
    /// <param name="delta">The inner product of the attention's output and its gradient.</param>
    public static void SoftmaxBackward(float* row, float* gradient, int seen, int length, float scale, float logSum, float delta)
    {
        var (factor, shift, minus) = (Vector256.Create(scale), Vector256.Create(logSum), Vector256.Create(delta));
        int i = 0;
        for (; i + 8 <= seen; i += 8)
        {
            var p = Exp(Vector256.Load(row + i) * factor - shift);
            p.Store(row + i);
            (p * (Vector256.Load(gradient + i) - minus) * factor).Store(gradient + i);
        }
        for (; i < seen; i++)
        {
            row[i] = MathF.Exp(row[i] * scale - logSum);
            gradient[i] = row[i] * (gradient[i] - delta) * scale;
        }
        new Span<float>(row + seen, length - seen).Clear();
        new Span<float>(gradient + seen, length - seen).Clear();
    }

    /// <summary><see cref="Peft.Core.VectorMath.Exp"/> at 256 bits.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector256<float> Exp(Vector256<float> x)
    {
        x = Avx.Max(Vector256.Create(-87.3365447f), Avx.Min(Vector256.Create(88.3762626f), x));
        var n = Vector256.Floor(Fma.MultiplyAdd(x, Vector256.Create(1.44269504f), Vector256.Create(0.5f)));
        var r = Fma.MultiplyAdd(n, Vector256.Create(-0.693359375f), x);
        r = Fma.MultiplyAdd(n, Vector256.Create(2.12194440e-4f), r);
        var p = Vector256.Create(1.9875691500e-4f);
        p = Fma.MultiplyAdd(p, r, Vector256.Create(1.3981999507e-3f));
        p = Fma.MultiplyAdd(p, r, Vector256.Create(8.3334519073e-3f));
        p = Fma.MultiplyAdd(p, r, Vector256.Create(4.1665795894e-2f));
        p = Fma.MultiplyAdd(p, r, Vector256.Create(1.6666665459e-1f));
        p = Fma.MultiplyAdd(p, r, Vector256.Create(5.0000001201e-1f));
        p = Fma.MultiplyAdd(p, r * r, r + Vector256<float>.One);
        return p * ((Avx.ConvertToVector256Int32WithTruncation(n) + Vector256.Create(127)) << 23).AsSingle();
    }
}
