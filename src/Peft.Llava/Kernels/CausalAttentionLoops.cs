using Peft.Core;

namespace Peft.Llava;

/// <summary>The loop of <see cref="CausalAttentionKernel.RotateToHeads"/> over rows.</summary>
internal readonly unsafe struct RotateToHeadsLoop<E>(
    void* x, void* y, float* c, float* s, long headCount, long stride, long width, long half) : IVectorLoop
    where E : struct, IVectorElement
{
    public void Run<V>(long begin, long end)
        where V : struct, IFloats<V>
    {
        for (long n = begin; n < end; n++)
        {
            for (long h = 0; h < headCount; h++)
            {
                long from = (n * headCount + h) * width, to = (h * stride + n) * width, angle = n * half;
                long i = 0;
                for (; i + 16 <= half; i += 16)
                {
                    var a = E.Load<V>(x, from + i);
                    var b = E.Load<V>(x, from + half + i);
                    E.Store(y, to + i, a * V.Load(c + angle + i) - b * V.Load(s + angle + i));
                    E.Store(y, to + half + i, b * V.Load(c + angle + i) + a * V.Load(s + angle + i));
                }
                for (; i < half; i++)
                {
                    float a = E.Get(x, from + i), b = E.Get(x, from + half + i);
                    E.Set(y, to + i, a * c[angle + i] - b * s[angle + i]);
                    E.Set(y, to + half + i, b * c[angle + i] + a * s[angle + i]);
                }
            }
        }
    }
}

/// <summary>The loop of <see cref="CausalAttentionKernel.RotateFromHeads"/> over rows.</summary>
internal readonly unsafe struct RotateFromHeadsLoop<E>(
    float* x, void* y, float* c, float* s, long headCount, long stride, long width, long half) : IVectorLoop
    where E : struct, IVectorElement
{
    public void Run<V>(long begin, long end)
        where V : struct, IFloats<V>
    {
        for (long n = begin; n < end; n++)
        {
            for (long h = 0; h < headCount; h++)
            {
                long from = (h * stride + n) * width, to = (n * headCount + h) * width, angle = n * half;
                long i = 0;
                for (; i + 16 <= half; i += 16)
                {
                    var a = V.Load(x + from + i);
                    var b = V.Load(x + from + half + i);
                    E.Store(y, to + i, a * V.Load(c + angle + i) + b * V.Load(s + angle + i));
                    E.Store(y, to + half + i, b * V.Load(c + angle + i) - a * V.Load(s + angle + i));
                }
                for (; i < half; i++)
                {
                    float a = x[from + i], b = x[from + half + i];
                    E.Set(y, to + i, a * c[angle + i] + b * s[angle + i]);
                    E.Set(y, to + half + i, b * c[angle + i] - a * s[angle + i]);
                }
            }
        }
    }
}

/// <summary>The loop of <see cref="CausalAttentionKernel.Softmax"/> over rows of scores.</summary>
internal readonly unsafe struct SoftmaxLoop<E>(
    void* p, float* lse, long rows, long length, long columns, long firstQuery, float scale, long firstColumn) : IVectorLoop
    where E : struct, IVectorElement
{
    private const long MaximumStackRow = 8192;

    public void Run<V>(long begin, long end)
        where V : struct, IFloats<V>
    {
        float* exponentials = stackalloc float[(int)Math.Min(length, MaximumStackRow)];
        for (long row = begin; row < end; row++)
        {
            long h = row / rows, r = row % rows, start = row * length;
            long seen = firstQuery + r + 1, full = seen & ~15L;
            var maxima = V.All(float.NegativeInfinity);
            long i = 0;
            for (; i < full; i += 16) maxima = V.Max(maxima, E.Load<V>(p, start + i));
            var inside = V.FirstLanes(seen - full);
            if (full < seen)
                maxima = V.Max(maxima, V.Select(inside, E.Load<V>(p, start + full), V.All(float.NegativeInfinity)));
            float maximum = V.Largest(maxima) * scale;
            var sums = default(V);
            for (i = 0; i < seen; i += 16)
            {
                var e = VectorMath.Exp(E.Load<V>(p, start + i) * scale - V.All(maximum));
                if (i == full) e = V.Select(inside, e, default(V));
                sums += e;
                if (length <= MaximumStackRow) V.Store(exponentials + i, e);
            }
            float sum = V.Sum(sums), inverse = 1 / sum;
            lse[h * columns + firstColumn + r] = maximum + MathF.Log(sum);
            for (i = 0; i < seen; i += 16)
            {
                var e = length <= MaximumStackRow
                    ? V.Load(exponentials + i)
                    : VectorMath.Exp(E.Load<V>(p, start + i) * scale - V.All(maximum));
                if (length > MaximumStackRow && i == full) e = V.Select(inside, e, default(V));
                E.Store(p, start + i, e * inverse);
            }
            for (; i < length; i += 16) E.Store(p, start + i, default(V));
        }
    }
}

/// <summary>The loop of <see cref="CausalAttentionKernel.SoftmaxBackward"/> over rows of scores.</summary>
internal readonly unsafe struct SoftmaxBackwardLoop<E>(
    void* p, void* dp, float* lse, float* deltaOf, long rows, long length, long columns, long firstQuery, float scale, long firstColumn) : IVectorLoop
    where E : struct, IVectorElement
{
    public void Run<V>(long begin, long end)
        where V : struct, IFloats<V>
    {
        for (long row = begin; row < end; row++)
        {
            long h = row / rows, r = row % rows, start = row * length;
            long seen = firstQuery + r + 1, full = seen & ~15L;
            var logSum = V.All(lse[h * columns + firstColumn + r]);
            var delta = V.All(deltaOf[h * columns + firstColumn + r]);
            var inside = V.FirstLanes(seen - full);
            long i = 0;
            for (; i < seen; i += 16)
            {
                var e = VectorMath.Exp(E.Load<V>(p, start + i) * scale - logSum);
                var d = e * (E.Load<V>(dp, start + i) - delta) * scale;
                if (i == full)
                {
                    e = V.Select(inside, e, default(V));
                    d = V.Select(inside, d, default(V));
                }
                E.Store(p, start + i, e);
                E.Store(dp, start + i, d);
            }
            for (; i < length; i += 16)
            {
                E.Store(p, start + i, default(V));
                E.Store(dp, start + i, default(V));
            }
        }
    }
}

/// <summary>The loop of <see cref="CausalAttentionKernel.Deltas"/> over rows.</summary>
internal readonly unsafe struct DeltasLoop<E>(
    void* o, void* g, float* delta, long count, long heads, long width) : IVectorLoop
    where E : struct, IVectorElement
{
    public void Run<V>(long begin, long end)
        where V : struct, IFloats<V>
    {
        for (long n = begin; n < end; n++)
        {
            for (long h = 0; h < heads; h++)
            {
                long start = (n * heads + h) * width, i = 0;
                var sums = default(V);
                for (; i + 16 <= width; i += 16) sums += E.Load<V>(o, start + i) * E.Load<V>(g, start + i);
                float sum = V.Sum(sums);
                for (; i < width; i++) sum += E.Get(o, start + i) * E.Get(g, start + i);
                delta[h * count + n] = sum;
            }
        }
    }
}
