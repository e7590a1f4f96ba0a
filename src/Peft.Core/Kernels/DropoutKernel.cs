using System.Runtime.CompilerServices;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>
/// Dropout whose mask is a function of a seed and the element's index, so that it is never stored and does not depend on the number of
/// threads.
/// </summary>
/// <remarks>
/// Thirty-two neighbouring elements take their sixteen random bits each from eight counters through the finaliser of SplitMix64
/// (Steele, Lea and Flood 2014). The drop probability is therefore rounded to a multiple of 1/65536.
/// </remarks>
internal static unsafe class DropoutKernel
{
    private const int Group = 32;

    /// <summary><c>target = x · mask / (1 - p)</c>.</summary>
    /// <param name="input">Contiguous, on the CPU, float32 or bfloat16.</param>
    /// <param name="target">Of the same shape and dtype, written.</param>
    /// <param name="seed">Chooses the mask.</param>
    /// <param name="probability">Probability of an element to be dropped.</param>
    public static void Apply(Tensor input, Tensor target, ulong seed, double probability)
    {
        if (input.dtype == ScalarType.BFloat16) Run<BFloat16Element>(input, target, seed, probability, add: false);
        else Run<Float32Element>(input, target, seed, probability, add: false);
    }

    /// <summary><c>target += x · mask / (1 - p)</c>.</summary>
    /// <param name="input">Contiguous, on the CPU, float32 or bfloat16.</param>
    /// <param name="target">Of the same shape and dtype, added to.</param>
    /// <param name="seed">Chooses the mask.</param>
    /// <param name="probability">Probability of an element to be dropped.</param>
    public static void Add(Tensor input, Tensor target, ulong seed, double probability)
    {
        if (input.dtype == ScalarType.BFloat16) Run<BFloat16Element>(input, target, seed, probability, add: true);
        else Run<Float32Element>(input, target, seed, probability, add: true);
    }

    private static void Run<E>(Tensor input, Tensor target, ulong seed, double probability, bool add)
        where E : struct, IVectorElement
    {
        ushort threshold = (ushort)Math.Clamp(Math.Round(probability * 65536), 0, 65535);
        VectorLoops.Run(new Loop<E>(CpuTensor.Pointer(input), CpuTensor.Pointer(target), seed, threshold, (float)(1 / (1 - probability)), add), input.numel(), 4096);
    }

    private readonly struct Loop<E>(void* x, void* y, ulong seed, ushort threshold, float scale, bool add) : IVectorLoop
        where E : struct, IVectorElement
    {
        public void Run<V>(long begin, long end)
            where V : struct, IFloats<V>
        {
            ushort* random = stackalloc ushort[Group];
            long i = begin;
            for (; i + Group <= end; i += Group)
            {
                DropoutBits.Mask<V>(seed, i, threshold, random, out V low, out V high);
                Step(i, low);
                Step(i + VectorLoops.Lanes, high);
            }
            if (i == end) return;
            DropoutBits.Store<V>(seed, i, random);
            for (int lane = 0; i < end; i++, lane++)
            {
                float value = random[lane] < threshold ? 0 : E.Get(x, i) * scale;
                E.Set(y, i, add ? E.Get(y, i) + value : value);
            }
        }

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        private void Step<V>(long index, V kept)
            where V : struct, IFloats<V>
        {
            // An infinite or NaN element that is dropped must become zero, so the mask selects and does not multiply.
            V value = V.And(E.Load<V>(x, index) * scale, kept);
            E.Store(y, index, add ? E.Load<V>(y, index) + value : value);
        }
    }
}
