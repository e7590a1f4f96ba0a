using System.Buffers;
using Peft.Core;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>
/// The attention of one new token per sequence to its cached past, rotation and writing to the cache included: one call instead of some
/// thirty small operators, which at this size are the cost. Sums are float32.
/// </summary>
internal static unsafe class DecodingAttention
{
    /// <summary>Whether the kernel can run.</summary>
    /// <param name="query">(B, Hq·d).</param>
    /// <param name="keys">A layer's cached keys.</param>
    public static bool CanRun(Tensor query, Tensor keys)
        => CpuTensor.IsKernelReady(query) && CpuTensor.IsKernelReady(keys) && query.dtype == keys.dtype;

    /// <summary>Attends.</summary>
    /// <param name="query">(B, Hq·d), not yet rotated.</param>
    /// <param name="key">(B, Hkv·d), not yet rotated.</param>
    /// <param name="value">(B, Hkv·d).</param>
    /// <param name="rope">The rotary tables of the B tokens.</param>
    /// <param name="keys">(S, Hkv, capacity, d): the cache of this layer; gets the rotated keys.</param>
    /// <param name="values">(S, Hkv, capacity, d): gets the values.</param>
    /// <param name="places">For each token, its sequence and how many tokens that has in the cache.</param>
    /// <param name="remember">Whether the token is stored, and sees itself.</param>
    /// <returns>A fresh (B, Hq·d) tensor in the current dispose scope.</returns>
    public static Tensor Apply(
        Tensor query, Tensor key, Tensor value, RotaryTables rope, Tensor keys, Tensor values, (int Sequence, int Before)[] places, bool remember)
    {
        var result = empty_like(query);
        if (query.dtype == ScalarType.BFloat16) Run<BFloat16Element>(query, key, value, rope, keys, values, places, remember, result);
        else Run<Float32Element>(query, key, value, rope, keys, values, places, remember, result);
        return result;
    }

    private static void Run<E>(
        Tensor query, Tensor key, Tensor value, RotaryTables rope, Tensor keys, Tensor values, (int Sequence, int Before)[] places, bool remember,
        Tensor result)
        where E : struct, IVectorElement
    {
        using var scope = NewDisposeScope();
        var (k, v) = (key.contiguous(), value.contiguous());
        int width = (int)keys.shape[3], capacity = (int)keys.shape[2], heads = (int)keys.shape[1], group = (int)(query.shape[1] / width / heads);
        byte* q = (byte*)CpuTensor.Pointer(query), kNew = (byte*)CpuTensor.Pointer(k), vNew = (byte*)CpuTensor.Pointer(v);
        byte* kCache = (byte*)CpuTensor.Pointer(keys), vCache = (byte*)CpuTensor.Pointer(values), output = (byte*)CpuTensor.Pointer(result);
        void* cos = CpuTensor.Pointer(rope.Cos), sin = CpuTensor.Pointer(rope.Sin);
        VectorLoops.Run(new Loop<E>(q, kNew, vNew, kCache, vCache, output, cos, sin, places, remember, width, capacity, heads, group), (long)places.Length * heads, 1);
    }

    private readonly struct Loop<E>(
        byte* q, byte* kNew, byte* vNew, byte* kCache, byte* vCache, byte* output, void* cos, void* sin, (int Sequence, int Before)[] places, bool remember,
        int width, int capacity, int heads, int group) : IVectorLoop
        where E : struct, IVectorElement
    {
        public void Run<V>(long begin, long end)
            where V : struct, IFloats<V>
        {
            float scale = 1 / MathF.Sqrt(width);
            int longest = places.Max(p => p.Before) + 1;
            float[] buffer = ArrayPool<float>.Shared.Rent(group * (longest + 2 * width));
            fixed (float* memory = buffer)
            {
                float* rotated = memory, sums = memory + group * width, weights = sums + group * width;
                for (long item = begin; item < end; item++)
                {
                    int row = (int)(item / heads), head = (int)(item % heads);
                    var (sequence, before) = places[row];
                    long cached = ((long)sequence * heads + head) * capacity * width * E.Size, fresh = ((long)row * heads + head) * width;
                    void* rowKeys = kCache + cached, rowValues = vCache + cached;
                    for (int g = 0; g < group; g++)
                        Rotate(q, ((long)row * heads * group + head * group + g) * width, row, scale, rotated + g * width);
                    int seen = before;
                    if (remember)
                    {
                        float* rotatedKey = sums;
                        Rotate(kNew, fresh, row, 1, rotatedKey);
                        for (int i = 0; i < width; i++) E.Set(rowKeys, (long)before * width + i, rotatedKey[i]);
                        Buffer.MemoryCopy(vNew + fresh * E.Size, (byte*)rowValues + (long)before * width * E.Size, width * E.Size, width * E.Size);
                        seen++;
                    }
                    for (int g = 0; g < group; g++)
                    {
                        Softmax<V>(rotated + g * width, rowKeys, seen, weights);
                        Mix<V>(weights, rowValues, seen, sums);
                        long at = ((long)row * heads * group + head * group + g) * width;
                        for (int i = 0; i < width; i++) E.Set(output, at + i, sums[i]);
                    }
                }
            }
            ArrayPool<float>.Shared.Return(buffer);
        }

        private void Rotate(void* source, long at, int row, float scale, float* target)
        {
            int half = width / 2;
            for (int i = 0; i < half; i++)
            {
                float c = E.Get(cos, (long)row * half + i), s = E.Get(sin, (long)row * half + i);
                float first = E.Get(source, at + i), second = E.Get(source, at + half + i);
                target[i] = (first * c - second * s) * scale;
                target[half + i] = (second * c + first * s) * scale;
            }
        }

        private void Softmax<V>(float* query, void* keys, int seen, float* weights)
            where V : struct, IFloats<V>
        {
            float maximum = float.NegativeInfinity;
            for (int n = 0; n < seen; n++)
            {
                long start = (long)n * width;
                var sums = default(V);
                int i = 0;
                for (; i + 16 <= width; i += 16) sums = V.FusedMultiplyAdd(E.Load<V>(keys, start + i), V.Load(query + i), sums);
                float sum = V.Sum(sums);
                for (; i < width; i++) sum += E.Get(keys, start + i) * query[i];
                weights[n] = sum;
                maximum = MathF.Max(maximum, sum);
            }
            float total = 0;
            for (int n = 0; n < seen; n++) total += weights[n] = MathF.Exp(weights[n] - maximum);
            for (int n = 0; n < seen; n++) weights[n] /= total;
        }

        private void Mix<V>(float* weights, void* values, int seen, float* sums)
            where V : struct, IFloats<V>
        {
            new Span<float>(sums, width).Clear();
            for (int n = 0; n < seen; n++)
            {
                long start = (long)n * width;
                var weight = V.All(weights[n]);
                int i = 0;
                for (; i + 16 <= width; i += 16)
                    V.Store(sums + i, V.FusedMultiplyAdd(weight, E.Load<V>(values, start + i), V.Load(sums + i)));
                for (; i < width; i++) sums[i] += weights[n] * E.Get(values, start + i);
            }
        }
    }
}
