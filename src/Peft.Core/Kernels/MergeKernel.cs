using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>Adds an adapter's delta to a weight and measures what that did, in one pass over both.</summary>
internal static unsafe class MergeKernel
{
    private const long ChunkElements = 1 << 12;

    /// <summary>What one merge did.</summary>
    /// <param name="IsFinite">Whether every element of the result is finite.</param>
    /// <param name="WeightNorm">Frobenius norm of the weight before.</param>
    /// <param name="DeltaNorm">Of what the merge adds in float32.</param>
    /// <param name="ErrorNorm">Of the result's distance from that.</param>
    internal readonly record struct Measures(bool IsFinite, double WeightNorm, double DeltaNorm, double ErrorNorm);

    /// <summary>True if the kernel can do it: both on the CPU and contiguous, the weight float32 or bfloat16, the delta float32.</summary>
    public static bool CanRun(Tensor weight, Tensor delta)
        => CpuTensor.IsKernelReady(weight) && CpuTensor.IsKernelReady(delta) && delta.dtype == ScalarType.Float32 && weight.numel() == delta.numel();

    /// <summary>Replaces a weight by its sum with a delta.</summary>
    /// <param name="weight">Any shape, float32 or bfloat16; holds the result afterwards.</param>
    /// <param name="delta">Float32 of the same shape.</param>
    /// <param name="scale">What the delta is multiplied by, rounded to float32, before anything else.</param>
    /// <param name="safe">Whether the delta is rounded to the weight's dtype before it is added.</param>
    public static Measures Add(Tensor weight, Tensor delta, float scale, bool safe)
        => weight.dtype == ScalarType.BFloat16 ? Add<BFloat16Element>(weight, delta, scale, safe) : Add<Float32Element>(weight, delta, scale, safe);

    private static Measures Add<E>(Tensor weight, Tensor delta, float scale, bool safe)
        where E : struct, IVectorElement
    {
        long count = weight.numel(), chunks = (count + ChunkElements - 1) / ChunkElements;
        void* w = CpuTensor.Pointer(weight), d = CpuTensor.Pointer(delta);
        var sums = new (double Weight, double Delta, double Error, bool Finite)[chunks];
        VectorLoops.Run(new Loop<E>(w, d, count, scale, safe, sums), chunks, 1);
        return new(Array.TrueForAll(sums, s => s.Finite), Math.Sqrt(sums.Sum(s => s.Weight)), Math.Sqrt(sums.Sum(s => s.Delta)), Math.Sqrt(sums.Sum(s => s.Error)));
    }

    private readonly struct Loop<E>(
        void* weight, void* delta, long count, float scale, bool safe, (double Weight, double Delta, double Error, bool Finite)[] sums) : IVectorLoop
        where E : struct, IVectorElement
    {
        public void Run<V>(long begin, long end)
            where V : struct, IFloats<V>
        {
            for (long chunk = begin; chunk < end; chunk++)
                sums[chunk] = Chunk<V>(chunk * ChunkElements, Math.Min(count, (chunk + 1) * ChunkElements));
        }

        private (double, double, double, bool) Chunk<V>(long begin, long end)
            where V : struct, IFloats<V>
        {
            V weights = default, deltas = default, errors = default, zeros = default;
            double weightRest = 0, deltaRest = 0, errorRest = 0;
            bool finite = true;
            long i = begin;
            for (; i + VectorLoops.Lanes <= end; i += VectorLoops.Lanes)
            {
                V w = E.Load<V>(weight, i), d = Float32Element.Load<V>(delta, i) * scale, exact = w + d;
                V result = E.Round(safe ? w + E.Round(d) : exact);
                E.Store(weight, i, result);
                V added = exact - w, error = result - exact;
                weights += w * w;
                deltas += added * added;
                errors += error * error;
                zeros += result * 0f;       // NaN where the result is NaN or infinite
            }
            for (; i < end; i++)
            {
                float w = E.Get(weight, i), d = Float32Element.Get(delta, i) * scale, exact = w + d;
                E.Set(weight, i, d);
                E.Set(weight, i, safe ? w + E.Get(weight, i) : exact);
                float result = E.Get(weight, i), added = exact - w, error = result - exact;
                weightRest += w * w;
                deltaRest += added * added;
                errorRest += error * error;
                finite &= float.IsFinite(result);
            }
            finite &= V.Sum(zeros) == 0;
            return (V.Sum(weights) + weightRest, V.Sum(deltas) + deltaRest, V.Sum(errors) + errorRest, finite);
        }
    }
}
