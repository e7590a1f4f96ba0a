using System.Runtime.CompilerServices;

namespace Peft.Quantization;

/// <summary>The largest magnitude of a block, NaN included, as bitsandbytes' reference takes it.</summary>
internal static unsafe class BlockMaximum
{
    /// <summary>No block is scaled by less; a short last block stores it as its maximum too.</summary>
    public const float Smallest = 1e-38f;

    /// <summary>The maximum of |x|: compared as integers, in which NaN is above all.</summary>
    public static float Of<L, F, I>(float* values, int count)
        where L : struct, ILanes<F, I>
    {
        I most = L.Broadcast(0), magnitude = L.Broadcast(0x7FFFFFFF);
        for (int i = 0; i < count; i += L.Count) most = L.Max(most, L.And(L.AsInt(L.Load(values + i)), magnitude));
        return BitConverter.Int32BitsToSingle(L.MaxLane(most));
    }

    /// <summary>The maximum as it is stored (a full block) or used as a scale.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static float Guard(float maximum, bool full) => !full && maximum < Smallest ? Smallest : maximum;
}
