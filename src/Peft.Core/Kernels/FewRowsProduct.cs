using System.Buffers;
using System.Runtime.Intrinsics;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>
/// <c>x Wᵀ + b</c> for a handful of rows of x, as one token at a time needs it: the weight is read once, as it is stored, and nothing else counts.
/// </summary>
/// <remarks>Sums run in float32 and are rounded once. 256-bit vectors are enough to wait for the memory.</remarks>
internal static unsafe class FewRowsProduct
{
    /// <summary>More rows than this are not few.</summary>
    public const int MostRows = 4;

    private const int Piece = PackedProduct.DepthBlock;

    /// <summary>Whether the kernel takes these operands: on the CPU, at most four rows; other dtypes than bfloat16 only where products are packed.</summary>
    public static bool CanRun(Tensor input, Tensor weight)
        => IsFew(input, weight.shape[1]) && CpuTensor.IsKernelReady(input) && CpuTensor.IsKernelReady(weight)
            && (ProductChoice.IsPacked(input, weight) || (input.dtype == ScalarType.BFloat16 && weight.dtype == ScalarType.BFloat16));

    /// <summary>Whether an input has a few rows.</summary>
    public static bool IsFew(Tensor input, long width) => input.numel() > 0 && input.numel() <= MostRows * width;

    /// <summary>The product with a dense weight.</summary>
    /// <param name="input">(..., in).</param>
    /// <param name="weight">(out, in).</param>
    /// <param name="bias">(out), or null.</param>
    /// <param name="dtype">That of the result; null for the input's.</param>
    /// <returns>A fresh (..., out) tensor.</returns>
    public static Tensor Run(Tensor input, Tensor weight, Tensor? bias, ScalarType? dtype = null)
    {
        var memory = MatrixMemory.Of(weight);
        return memory.IsHalf
            ? Run(input, weight.shape[0], weight.shape[1], bias, dtype ?? input.dtype, (x, row, rows, sums) => Dots<Half256>(x, memory.At(row, 0), 0, memory.Columns, memory.Columns, rows, sums))
            : Run(input, weight.shape[0], weight.shape[1], bias, dtype ?? input.dtype, (x, row, rows, sums) => Dots<Single256>(x, memory.At(row, 0), 0, memory.Columns, memory.Columns, rows, sums));
    }

    /// <summary>The product with a weight that decodes its rows.</summary>
    /// <param name="input">(..., in), contiguous, float32 or bfloat16.</param>
    /// <param name="weight">The (out, in) weight, for <c>x Wᵀ</c>.</param>
    /// <param name="bias">(out), or null.</param>
    /// <returns>A fresh (..., out) tensor.</returns>
    public static Tensor Run(Tensor input, DecodedPanels weight, Tensor? bias)
        => Run(input, weight.Columns, weight.Depth, bias, input.dtype, (x, row, rows, sums) =>
        {
            float* decoded = stackalloc float[Piece];
            long width = weight.Depth;
            for (long k = 0; k < width; k += Piece)
            {
                int count = (int)Math.Min(Piece, width - k);
                weight.DecodeRow(row, k, count, decoded);
                Dots<Single256>(x, decoded, k, count, width, rows, sums);
            }
        });

    private delegate void RowProducts(float* x, long row, int rows, float* sums);

    private static Tensor Run(Tensor input, long outputs, long width, Tensor? bias, ScalarType dtype, RowProducts products)
    {
        int rows = (int)(input.numel() / width);
        var result = empty([.. input.shape[..^1], outputs], dtype);
        using var wideBias = bias?.to(ScalarType.Float32).contiguous();
        float* b = wideBias is null ? null : (float*)CpuTensor.Pointer(wideBias);
        var (source, target) = (MatrixMemory.Of(input), MatrixMemory.Of(result));
        float[] wide = ArrayPool<float>.Shared.Rent((int)(rows * width));
        try
        {
            fixed (float* pinned = wide)
            {
                float* x = pinned;
                for (long i = 0; i < rows * width; i++) x[i] = source.IsHalf ? BFloat16Element.Get((void*)source.Data, i) : ((float*)source.Data)[i];
                CpuParallel.For(outputs, 32, (begin, end) =>
                {
                    float* sums = stackalloc float[MostRows];
                    for (long o = begin; o < end; o++)
                    {
                        for (int r = 0; r < MostRows; r++) sums[r] = b is null ? 0 : b[o];
                        products(x, o, rows, sums);
                        for (int r = 0; r < rows; r++)
                        {
                            if (target.IsHalf) BFloat16Element.Set((void*)target.Data, r * outputs + o, sums[r]);
                            else ((float*)target.Data)[r * outputs + o] = sums[r];
                        }
                    }
                });
            }
        }
        finally
        {
            ArrayPool<float>.Shared.Return(wide);
        }
        return result;
    }

    /// <summary>Adds the inner products of a piece of a weight's row with the same piece of each x.</summary>
    private static void Dots<E>(float* x, void* w, long first, long count, long width, int rows, float* sums)
        where E : IElement256
    {
        x += first;
        if (rows == 1)
        {
            sums[0] += Dot<E>(x, w, count);
            return;
        }
        float* x1 = x + width, x2 = rows > 2 ? x1 + width : x1, x3 = rows > 3 ? x2 + width : x2;
        Vector256<float> s0 = default, s1 = default, s2 = default, s3 = default;
        long i = 0;
        for (; i + 8 <= count; i += 8)
        {
            var v = E.Load(w, i);
            s0 = Vector256.MultiplyAddEstimate(v, Vector256.Load(x + i), s0);
            s1 = Vector256.MultiplyAddEstimate(v, Vector256.Load(x1 + i), s1);
            s2 = Vector256.MultiplyAddEstimate(v, Vector256.Load(x2 + i), s2);
            s3 = Vector256.MultiplyAddEstimate(v, Vector256.Load(x3 + i), s3);
        }
        float t0 = Vector256.Sum(s0), t1 = Vector256.Sum(s1), t2 = Vector256.Sum(s2), t3 = Vector256.Sum(s3);
        for (; i < count; i++)
        {
            float v = E.Get(w, i);
            t0 += v * x[i];
            t1 += v * x1[i];
            t2 += v * x2[i];
            t3 += v * x3[i];
        }
        sums[0] += t0;
        sums[1] += t1;
        if (rows > 2) sums[2] += t2;
        if (rows > 3) sums[3] += t3;
    }

    private static float Dot<E>(float* x, void* w, long count)
        where E : IElement256
    {
        Vector256<float> s0 = default, s1 = default, s2 = default, s3 = default;
        long i = 0;
        for (; i + 32 <= count; i += 32)
        {
            s0 = Vector256.MultiplyAddEstimate(E.Load(w, i), Vector256.Load(x + i), s0);
            s1 = Vector256.MultiplyAddEstimate(E.Load(w, i + 8), Vector256.Load(x + i + 8), s1);
            s2 = Vector256.MultiplyAddEstimate(E.Load(w, i + 16), Vector256.Load(x + i + 16), s2);
            s3 = Vector256.MultiplyAddEstimate(E.Load(w, i + 24), Vector256.Load(x + i + 24), s3);
        }
        float sum = Vector256.Sum(s0 + s1 + (s2 + s3));
        for (; i < count; i++) sum += E.Get(w, i) * x[i];
        return sum;
    }
}
