using Peft.Core;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>Rotary position embedding of packed rows of heads, where they lie.</summary>
internal static unsafe class RotaryRows
{
    /// <summary>Rotates (N, H·d) rows.</summary>
    /// <param name="rows">(N, H·d), contiguous.</param>
    /// <param name="cos">(N, d/2) float32.</param>
    /// <param name="sin">(N, d/2) float32.</param>
    /// <returns>A fresh tensor of the same shape and dtype.</returns>
    public static Tensor Rotate(Tensor rows, Tensor cos, Tensor sin)
    {
        var result = empty_like(rows);
        if (rows.dtype == ScalarType.BFloat16) Rotate<BFloat16Element>(rows, cos, sin, result);
        else Rotate<Float32Element>(rows, cos, sin, result);
        return result;
    }

    private static void Rotate<E>(Tensor rows, Tensor cos, Tensor sin, Tensor target)
        where E : struct, IVectorElement
    {
        long count = rows.shape[0], half = cos.shape[1], heads = rows.shape[1] / (2 * half);
        void* x = CpuTensor.Pointer(rows), y = CpuTensor.Pointer(target);
        float* c = (float*)CpuTensor.Pointer(cos), s = (float*)CpuTensor.Pointer(sin);
        CpuParallel.For(count, 8, (begin, end) =>
        {
            for (long n = begin; n < end; n++)
                for (long h = 0; h < heads; h++) One<E>(x, (n * heads + h) * 2 * half, c + n * half, s + n * half, half, y);
        });
    }

    private static void One<E>(void* x, long at, float* cos, float* sin, long half, void* y)
        where E : struct, IVectorElement
    {
        for (long i = 0; i < half; i++)
        {
            float a = E.Get(x, at + i), b = E.Get(x, at + half + i);
            E.Set(y, at + i, a * cos[i] - b * sin[i]);
            E.Set(y, at + half + i, b * cos[i] + a * sin[i]);
        }
    }

    /// <summary>Rotates one float32 row back and rounds it to its place: the gradient of <see cref="Rotate(Tensor, Tensor, Tensor)"/>.</summary>
    /// <param name="row">d floats, each <paramref name="stride"/> apart.</param>
    /// <param name="stride">The distance between the row's floats.</param>
    /// <param name="cos">d/2 floats.</param>
    /// <param name="sin">d/2 floats.</param>
    /// <param name="half">d/2.</param>
    /// <param name="target">The memory that the row goes to.</param>
    /// <param name="isHalf">Whether that is bfloat16.</param>
    /// <param name="at">The row's first element there.</param>
    public static void Back(float* row, long stride, float* cos, float* sin, long half, void* target, bool isHalf, long at)
    {
        for (long i = 0; i < half; i++)
        {
            float a = row[i * stride], b = row[(half + i) * stride];
            float first = a * cos[i] + b * sin[i], second = b * cos[i] - a * sin[i];
            if (isHalf)
            {
                BFloat16Element.Set(target, at + i, first);
                BFloat16Element.Set(target, at + half + i, second);
            }
            else
            {
                ((float*)target)[at + i] = first;
                ((float*)target)[at + half + i] = second;
            }
        }
    }
}
