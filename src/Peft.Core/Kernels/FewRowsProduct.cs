using System.Buffers;
using System.Runtime.Intrinsics;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>
/// <c>x Wᵀ + b</c> for a handful of rows of x, as one token at a time needs it: the weight is read once, at memory speed, and nothing else
/// counts. libtorch's product takes 1.3 to 1.9 times as long there.
/// </summary>
/// <remarks>Sums run in float32 and are rounded once.</remarks>
internal static unsafe class FewRowsProduct
{
    /// <summary>More rows than this are not few.</summary>
    public const int MostRows = 4;

    /// <summary>Whether the kernel takes these operands: bfloat16 on the CPU, at most four rows.</summary>
    public static bool CanRun(Tensor input, Tensor weight)
        => input.dtype == ScalarType.BFloat16 && weight.dtype == ScalarType.BFloat16
            && input.numel() <= MostRows * weight.shape[1] && input.numel() > 0
            && CpuTensor.IsKernelReady(input) && CpuTensor.IsKernelReady(weight);

    /// <summary>The product.</summary>
    /// <param name="input">(..., in).</param>
    /// <param name="weight">(out, in).</param>
    /// <param name="bias">(out), or null.</param>
    /// <returns>A fresh (..., out) tensor.</returns>
    public static Tensor Run(Tensor input, Tensor weight, Tensor? bias)
    {
        long width = weight.shape[1], outputs = weight.shape[0], rows = input.numel() / width;
        var result = empty([.. input.shape[..^1], outputs], ScalarType.BFloat16);
        using var wideBias = bias?.to(ScalarType.Float32).contiguous();
        float[] wide = ArrayPool<float>.Shared.Rent((int)(rows * width));
        try
        {
            fixed (float* x = wide)
            {
                void* source = CpuTensor.Pointer(input);
                for (long i = 0; i < rows * width; i++) wide[i] = BFloat16Element.Get(source, i);
                Run(x, (ushort*)CpuTensor.Pointer(weight), bias is null ? null : (float*)CpuTensor.Pointer(wideBias!),
                    (ushort*)CpuTensor.Pointer(result), (int)rows, outputs, width);
            }
        }
        finally
        {
            ArrayPool<float>.Shared.Return(wide);
        }
        return result;
    }

    private static void Run(float* x, ushort* weight, float* bias, ushort* y, int rows, long outputs, long width)
        => CpuParallel.For(outputs, 32, (begin, end) =>
        {
            float* sums = stackalloc float[MostRows];
            for (long o = begin; o < end; o++)
            {
                ushort* w = weight + o * width;
                if (rows == 1) sums[0] = Dot(x, w, width);
                else Dots(x, w, width, rows, sums);
                for (int r = 0; r < rows; r++)
                    BFloat16Element.Set(y, r * outputs + o, bias is null ? sums[r] : sums[r] + bias[o]);
            }
        });

    private static float Dot(float* x, ushort* w, long width)
    {
        Vector512<float> s0 = default, s1 = default, s2 = default, s3 = default;
        long i = 0;
        for (; i + 64 <= width; i += 64)
        {
            s0 = Vector512.MultiplyAddEstimate(BFloat16Element.Load(w, i), Vector512.Load(x + i), s0);
            s1 = Vector512.MultiplyAddEstimate(BFloat16Element.Load(w, i + 16), Vector512.Load(x + i + 16), s1);
            s2 = Vector512.MultiplyAddEstimate(BFloat16Element.Load(w, i + 32), Vector512.Load(x + i + 32), s2);
            s3 = Vector512.MultiplyAddEstimate(BFloat16Element.Load(w, i + 48), Vector512.Load(x + i + 48), s3);
        }
        float sum = Vector512.Sum(s0 + s1 + (s2 + s3));
        for (; i < width; i++) sum += BFloat16Element.Get(w, i) * x[i];
        return sum;
    }

    /// <summary>Two to four rows at once: each piece of the weight is widened once.</summary>
    private static void Dots(float* x, ushort* w, long width, int rows, float* sums)
    {
        float* x1 = x + width, x2 = rows > 2 ? x1 + width : x1, x3 = rows > 3 ? x2 + width : x2;
        Vector512<float> s0 = default, s1 = default, s2 = default, s3 = default;
        long i = 0;
        for (; i + 16 <= width; i += 16)
        {
            var v = BFloat16Element.Load(w, i);
            s0 = Vector512.MultiplyAddEstimate(v, Vector512.Load(x + i), s0);
            s1 = Vector512.MultiplyAddEstimate(v, Vector512.Load(x1 + i), s1);
            s2 = Vector512.MultiplyAddEstimate(v, Vector512.Load(x2 + i), s2);
            s3 = Vector512.MultiplyAddEstimate(v, Vector512.Load(x3 + i), s3);
        }
        float t0 = Vector512.Sum(s0), t1 = Vector512.Sum(s1), t2 = Vector512.Sum(s2), t3 = Vector512.Sum(s3);
        for (; i < width; i++)
        {
            float v = BFloat16Element.Get(w, i);
            t0 += v * x[i];
            t1 += v * x1[i];
            t2 += v * x2[i];
            t3 += v * x3[i];
        }
        sums[0] = t0;
        sums[1] = t1;
        if (rows > 2) sums[2] = t2;
        if (rows > 3) sums[3] = t3;
    }
}
