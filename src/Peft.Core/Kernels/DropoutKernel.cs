using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
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
        void* x = CpuTensor.Pointer(input), y = CpuTensor.Pointer(target);
        ushort threshold = (ushort)Math.Clamp(Math.Round(probability * 65536), 0, 65535);
        float scale = (float)(1 / (1 - probability));
        CpuParallel.For(input.numel(), 4096, (begin, end) =>
        {
            long i = begin;
            for (; i + Group <= end; i += Group)
            {
                var (low, high) = Kept(seed, i, threshold);
                Step<E>(x, y, i, low, scale, add);
                Step<E>(x, y, i + 16, high, scale, add);
            }
            if (i == end) return;
            ushort* random = stackalloc ushort[Group];
            Random(seed, i).Store(random);
            for (int lane = 0; i < end; i++, lane++)
            {
                float value = random[lane] < threshold ? 0 : E.Get(x, i) * scale;
                E.Set(y, i, add ? E.Get(y, i) + value : value);
            }
        });
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Step<E>(void* x, void* y, long index, Vector512<float> kept, float scale, bool add)
        where E : struct, IVectorElement
    {
        // An infinite or NaN element that is dropped must become zero, so the mask selects and does not multiply.
        var value = (E.Load(x, index) * scale).AsUInt32() & kept.AsUInt32();
        E.Store(y, index, add ? E.Load(y, index) + value.AsSingle() : value.AsSingle());
    }

    /// <summary>All bits set in the lanes that are kept, for 32 elements.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static (Vector512<float> Low, Vector512<float> High) Kept(ulong seed, long index, ushort threshold)
    {
        var kept = Vector512.GreaterThanOrEqual(Random(seed, index), Vector512.Create(threshold)).AsInt16();
        var (low, high) = Vector512.Widen(kept);        // sign extension keeps all bits set
        return (low.AsSingle(), high.AsSingle());
    }

    /// <summary>Sixteen random bits for each of the 32 elements from <paramref name="index"/> on, a multiple of 32.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector512<ushort> Random(ulong seed, long index)
    {
        var counter = Vector512.Create((ulong)index / 4) + Vector512.Create(0ul, 1, 2, 3, 4, 5, 6, 7);
        var z = Vector512.Create(seed) + counter * Vector512.Create(0x9E3779B97F4A7C15ul);
        z = (z ^ (z >>> 30)) * Vector512.Create(0xBF58476D1CE4E5B9ul);
        z = (z ^ (z >>> 27)) * Vector512.Create(0x94D049BB133111EBul);
        return (z ^ (z >>> 31)).AsUInt16();
    }
}
