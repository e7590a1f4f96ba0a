using System.Runtime.Intrinsics;
using Peft.Core;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>The elementwise parts of blocked causal attention on the CPU; the products between them are libtorch's.</summary>
/// <remarks>Score buffers have row lengths that divide by 32, so no row has a remainder; columns beyond the diagonal come out as zero.</remarks>
internal static unsafe class CausalAttentionKernel
{
    /// <summary>Rotates (N, H·d) rows by their positions and lays them out as (H, N + pad, d).</summary>
    /// <param name="rows">(N, H·d).</param>
    /// <param name="cos">(N, d/2) float32.</param>
    /// <param name="sin">(N, d/2) float32.</param>
    /// <param name="heads">(H, N + pad, d), written for the first N rows.</param>
    public static void RotateToHeads<E>(Tensor rows, Tensor cos, Tensor sin, Tensor heads)
        where E : struct, IVectorElement
    {
        long count = rows.shape[0], headCount = heads.shape[0], stride = heads.shape[1], width = heads.shape[2], half = width / 2;
        void* x = CpuTensor.Pointer(rows), y = CpuTensor.Pointer(heads);
        float* c = (float*)CpuTensor.Pointer(cos), s = (float*)CpuTensor.Pointer(sin);
        CpuParallel.For(count, 8, (begin, end) =>
        {
            for (long n = begin; n < end; n++)
            {
                for (long h = 0; h < headCount; h++)
                {
                    long from = (n * headCount + h) * width, to = (h * stride + n) * width, angle = n * half;
                    long i = 0;
                    for (; i + 16 <= half; i += 16)
                    {
                        var a = E.Load(x, from + i);
                        var b = E.Load(x, from + half + i);
                        E.Store(y, to + i, a * Vector512.Load(c + angle + i) - b * Vector512.Load(s + angle + i));
                        E.Store(y, to + half + i, b * Vector512.Load(c + angle + i) + a * Vector512.Load(s + angle + i));
                    }
                    for (; i < half; i++)
                    {
                        float a = E.Get(x, from + i), b = E.Get(x, from + half + i);
                        E.Set(y, to + i, a * c[angle + i] - b * s[angle + i]);
                        E.Set(y, to + half + i, b * c[angle + i] + a * s[angle + i]);
                    }
                }
            }
        });
    }

    /// <summary>The transpose of <see cref="RotateToHeads"/>: gradients (H, N + pad, d) back to (N, H·d).</summary>
    /// <param name="heads">(H, N + pad, d) float32.</param>
    /// <param name="cos">(N, d/2) float32.</param>
    /// <param name="sin">(N, d/2) float32.</param>
    /// <param name="rows">(N, H·d), written.</param>
    public static void RotateFromHeads<E>(Tensor heads, Tensor cos, Tensor sin, Tensor rows)
        where E : struct, IVectorElement
    {
        long count = rows.shape[0], headCount = heads.shape[0], stride = heads.shape[1], width = heads.shape[2], half = width / 2;
        float* x = (float*)CpuTensor.Pointer(heads);
        void* y = CpuTensor.Pointer(rows);
        float* c = (float*)CpuTensor.Pointer(cos), s = (float*)CpuTensor.Pointer(sin);
        CpuParallel.For(count, 8, (begin, end) =>
        {
            for (long n = begin; n < end; n++)
            {
                for (long h = 0; h < headCount; h++)
                {
                    long from = (h * stride + n) * width, to = (n * headCount + h) * width, angle = n * half;
                    long i = 0;
                    for (; i + 16 <= half; i += 16)
                    {
                        var a = Vector512.Load(x + from + i);
                        var b = Vector512.Load(x + from + half + i);
                        E.Store(y, to + i, a * Vector512.Load(c + angle + i) + b * Vector512.Load(s + angle + i));
                        E.Store(y, to + half + i, b * Vector512.Load(c + angle + i) - a * Vector512.Load(s + angle + i));
                    }
                    for (; i < half; i++)
                    {
                        float a = x[from + i], b = x[from + half + i];
                        E.Set(y, to + i, a * c[angle + i] + b * s[angle + i]);
                        E.Set(y, to + half + i, b * c[angle + i] - a * s[angle + i]);
                    }
                }
            }
        });
    }

    /// <summary>Causal softmax of a block of scores, in place.</summary>
    /// <param name="scores">(H, rows, L), L a multiple of 32; row r is query <paramref name="firstQuery"/> + r and sees keys up to itself.</param>
    /// <param name="firstQuery">Position of the first row in its sequence.</param>
    /// <param name="scale">Multiplies the scores.</param>
    /// <param name="logSums">(H, N) float32: the logarithm of each row's sum of exponentials is written at column <paramref name="firstColumn"/> + r.</param>
    /// <param name="firstColumn">Index of the first row among all rows of the batch.</param>
    public static void Softmax<E>(Tensor scores, long firstQuery, float scale, Tensor logSums, long firstColumn)
        where E : struct, IVectorElement
    {
        long heads = scores.shape[0], rows = scores.shape[1], length = scores.shape[2], columns = logSums.shape[1];
        void* p = CpuTensor.Pointer(scores);
        float* lse = (float*)CpuTensor.Pointer(logSums);
        CpuParallel.For(heads * rows, 8, (begin, end) =>
        {
            var lanes = Vector512.Create(0f, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
            float* exponentials = stackalloc float[(int)Math.Min(length, MaximumStackRow)];
            for (long row = begin; row < end; row++)
            {
                long h = row / rows, r = row % rows, start = row * length;
                long seen = firstQuery + r + 1, full = seen & ~15L;
                var maxima = Vector512.Create(float.NegativeInfinity);
                long i = 0;
                for (; i < full; i += 16) maxima = Vector512.Max(maxima, E.Load(p, start + i));
                var inside = Vector512.LessThan(lanes, Vector512.Create((float)(seen - full)));
                if (full < seen)
                    maxima = Vector512.Max(maxima, Vector512.ConditionalSelect(inside, E.Load(p, start + full), Vector512.Create(float.NegativeInfinity)));
                float maximum = VectorMath.Max(maxima) * scale;
                var sums = Vector512<float>.Zero;
                for (i = 0; i < seen; i += 16)
                {
                    var e = VectorMath.Exp(E.Load(p, start + i) * scale - Vector512.Create(maximum));
                    if (i == full) e = Vector512.ConditionalSelect(inside, e, Vector512<float>.Zero);
                    sums += e;
                    if (length <= MaximumStackRow) e.Store(exponentials + i);
                }
                float sum = Vector512.Sum(sums), inverse = 1 / sum;
                lse[h * columns + firstColumn + r] = maximum + MathF.Log(sum);
                for (i = 0; i < seen; i += 16)
                {
                    var e = length <= MaximumStackRow
                        ? Vector512.Load(exponentials + i)
                        : VectorMath.Exp(E.Load(p, start + i) * scale - Vector512.Create(maximum));
                    if (length > MaximumStackRow && i == full) e = Vector512.ConditionalSelect(inside, e, Vector512<float>.Zero);
                    E.Store(p, start + i, e * inverse);
                }
                for (; i < length; i += 16) E.Store(p, start + i, Vector512<float>.Zero);
            }
        });
    }

    /// <summary>The softmax once more from its saved sums, and the gradient of the scores, both in place.</summary>
    /// <param name="scores">(H, rows, L): scores on entry, probabilities on return.</param>
    /// <param name="gradients">(H, rows, L): gradient of the probabilities on entry, of the unscaled scores on return.</param>
    /// <param name="firstQuery">Position of the first row in its sequence.</param>
    /// <param name="scale">Multiplies the scores.</param>
    /// <param name="logSums">(H, N) as <see cref="Softmax"/> wrote it.</param>
    /// <param name="deltas">(H, N) float32: each row's inner product of output and its gradient.</param>
    /// <param name="firstColumn">Index of the first row among all rows of the batch.</param>
    public static void SoftmaxBackward<E>(
        Tensor scores, Tensor gradients, long firstQuery, float scale, Tensor logSums, Tensor deltas, long firstColumn)
        where E : struct, IVectorElement
    {
        long heads = scores.shape[0], rows = scores.shape[1], length = scores.shape[2], columns = logSums.shape[1];
        void* p = CpuTensor.Pointer(scores), dp = CpuTensor.Pointer(gradients);
        float* lse = (float*)CpuTensor.Pointer(logSums), deltaOf = (float*)CpuTensor.Pointer(deltas);
        CpuParallel.For(heads * rows, 8, (begin, end) =>
        {
            var lanes = Vector512.Create(0f, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
            for (long row = begin; row < end; row++)
            {
                long h = row / rows, r = row % rows, start = row * length;
                long seen = firstQuery + r + 1, full = seen & ~15L;
                var logSum = Vector512.Create(lse[h * columns + firstColumn + r]);
                var delta = Vector512.Create(deltaOf[h * columns + firstColumn + r]);
                var inside = Vector512.LessThan(lanes, Vector512.Create((float)(seen - full)));
                long i = 0;
                for (; i < seen; i += 16)
                {
                    var e = VectorMath.Exp(E.Load(p, start + i) * scale - logSum);
                    var d = e * (E.Load(dp, start + i) - delta) * scale;
                    if (i == full)
                    {
                        e = Vector512.ConditionalSelect(inside, e, Vector512<float>.Zero);
                        d = Vector512.ConditionalSelect(inside, d, Vector512<float>.Zero);
                    }
                    E.Store(p, start + i, e);
                    E.Store(dp, start + i, d);
                }
                for (; i < length; i += 16)
                {
                    E.Store(p, start + i, Vector512<float>.Zero);
                    E.Store(dp, start + i, Vector512<float>.Zero);
                }
            }
        });
    }

    /// <summary>Each head row's inner product of the output and its gradient.</summary>
    /// <param name="output">(N, H·d).</param>
    /// <param name="gradient">(N, H·d).</param>
    /// <param name="deltas">(H, N) float32, written.</param>
    public static void Deltas<E>(Tensor output, Tensor gradient, Tensor deltas)
        where E : struct, IVectorElement
    {
        long count = output.shape[0], heads = deltas.shape[0], width = output.shape[1] / heads;
        void* o = CpuTensor.Pointer(output), g = CpuTensor.Pointer(gradient);
        float* delta = (float*)CpuTensor.Pointer(deltas);
        CpuParallel.For(count, 8, (begin, end) =>
        {
            for (long n = begin; n < end; n++)
            {
                for (long h = 0; h < heads; h++)
                {
                    long start = (n * heads + h) * width, i = 0;
                    var sums = Vector512<float>.Zero;
                    for (; i + 16 <= width; i += 16) sums += E.Load(o, start + i) * E.Load(g, start + i);
                    float sum = Vector512.Sum(sums);
                    for (; i < width; i++) sum += E.Get(o, start + i) * E.Get(g, start + i);
                    delta[h * count + n] = sum;
                }
            }
        });
    }

    private const long MaximumStackRow = 8192;
}
