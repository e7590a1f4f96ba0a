using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace Peft.Core;

/// <summary>
/// The random bits of <see cref="DropoutKernel"/>: sixteen for each of 32 neighbouring elements, from eight counters through the finaliser
/// of SplitMix64 (Steele, Lea and Flood 2014).
/// </summary>
internal static unsafe class DropoutBits
{
    private const ulong Step = 0x9E3779B97F4A7C15, First = 0xBF58476D1CE4E5B9, Second = 0x94D049BB133111EB;

    /// <summary>All bits set in the lanes that are kept, for 32 elements.</summary>
    /// <param name="seed">Chooses the bits.</param>
    /// <param name="index">The first element, a multiple of 32.</param>
    /// <param name="threshold">Elements whose bits are below it are dropped.</param>
    /// <param name="random">Room for 32 numbers.</param>
    /// <param name="low">The first sixteen.</param>
    /// <param name="high">The others.</param>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Mask<V>(ulong seed, long index, ushort threshold, ushort* random, out V low, out V high)
        where V : struct, IFloats<V>
    {
        if (typeof(V) == typeof(Floats512))
        {
            var kept = Vector512.GreaterThanOrEqual(Random512(seed, index), Vector512.Create(threshold)).AsInt16();
            var (lower, upper) = Vector512.Widen(kept);        // sign extension keeps all bits set
            low = Unsafe.BitCast<Vector512<float>, V>(lower.AsSingle());
            high = Unsafe.BitCast<Vector512<float>, V>(upper.AsSingle());
            return;
        }
        Vector256.GreaterThanOrEqual(Random256(seed, index), Vector256.Create(threshold)).Store(random);
        Vector256.GreaterThanOrEqual(Random256(seed, index + 16), Vector256.Create(threshold)).Store(random + 16);
        low = V.LoadMask((short*)random);
        high = V.LoadMask((short*)random + 16);
    }

    /// <summary>The bits themselves.</summary>
    /// <param name="seed">Chooses the bits.</param>
    /// <param name="index">The first element, a multiple of 32.</param>
    /// <param name="random">32 numbers, written.</param>
    public static void Store<V>(ulong seed, long index, ushort* random)
        where V : struct, IFloats<V>
    {
        if (typeof(V) == typeof(Floats512))
        {
            Random512(seed, index).Store(random);
            return;
        }
        Random256(seed, index).Store(random);
        Random256(seed, index + 16).Store(random + 16);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector512<ushort> Random512(ulong seed, long index)
    {
        var counter = Vector512.Create((ulong)index / 4) + Vector512.Create(0ul, 1, 2, 3, 4, 5, 6, 7);
        var z = Vector512.Create(seed) + counter * Vector512.Create(Step);
        z = (z ^ (z >>> 30)) * Vector512.Create(First);
        z = (z ^ (z >>> 27)) * Vector512.Create(Second);
        return (z ^ (z >>> 31)).AsUInt16();
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector256<ushort> Random256(ulong seed, long index)
    {
        var counter = Vector256.Create((ulong)index / 4) + Vector256.Create(0ul, 1, 2, 3);
        var z = Vector256.Create(seed) + counter * Vector256.Create(Step);
        z = (z ^ (z >>> 30)) * Vector256.Create(First);
        z = (z ^ (z >>> 27)) * Vector256.Create(Second);
        return (z ^ (z >>> 31)).AsUInt16();
    }
}
