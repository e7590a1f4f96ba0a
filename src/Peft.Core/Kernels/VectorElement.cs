using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace Peft.Core;

/// <summary>
/// How sixteen neighbouring elements of a tensor become fp32 lanes and back, so that a kernel is written once for all dtypes.
/// Implementations are empty structs; a kernel generic over them is specialised by the JIT.
/// </summary>
public unsafe interface IVectorElement
{
    /// <summary>Bytes of one element.</summary>
    static abstract int Size { get; }

    /// <summary>Sixteen elements from <paramref name="source"/> + <paramref name="index"/>.</summary>
    static abstract Vector512<float> Load(void* source, long index);

    /// <summary>Stores sixteen elements, rounded to nearest even.</summary>
    static abstract void Store(void* target, long index, Vector512<float> value);

    /// <summary>What storing and loading again would give.</summary>
    static abstract Vector512<float> Round(Vector512<float> value);

    /// <summary>One element.</summary>
    static abstract float Get(void* source, long index);

    /// <summary>Stores one element, rounded to nearest even.</summary>
    static abstract void Set(void* target, long index, float value);
}

/// <summary>Elements of a float32 tensor.</summary>
public readonly unsafe struct Float32Element : IVectorElement
{
    /// <inheritdoc/>
    public static int Size => 4;

    /// <inheritdoc/>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<float> Load(void* source, long index) => Vector512.Load((float*)source + index);

    /// <inheritdoc/>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Store(void* target, long index, Vector512<float> value) => value.Store((float*)target + index);

    /// <inheritdoc/>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<float> Round(Vector512<float> value) => value;

    /// <inheritdoc/>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static float Get(void* source, long index) => ((float*)source)[index];

    /// <inheritdoc/>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Set(void* target, long index, float value) => ((float*)target)[index] = value;
}

/// <summary>Elements of a bfloat16 tensor: the upper half of a float32.</summary>
public readonly unsafe struct BFloat16Element : IVectorElement
{
    /// <inheritdoc/>
    public static int Size => 2;

    /// <inheritdoc/>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<float> Load(void* source, long index)
    {
        var (lower, upper) = Vector256.Widen(Vector256.Load((ushort*)source + index));
        return (Vector512.Create(lower, upper) << 16).AsSingle();
    }

    /// <inheritdoc/>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Store(void* target, long index, Vector512<float> value)
    {
        var rounded = RoundedBits(value);
        Vector256.Narrow(rounded.GetLower(), rounded.GetUpper()).Store((ushort*)target + index);
    }

    /// <inheritdoc/>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<float> Round(Vector512<float> value) => (RoundedBits(value) << 16).AsSingle();

    /// <inheritdoc/>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static float Get(void* source, long index) => BitConverter.UInt32BitsToSingle((uint)((ushort*)source)[index] << 16);

    /// <inheritdoc/>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Set(void* target, long index, float value)
    {
        uint bits = BitConverter.SingleToUInt32Bits(value);
        ((ushort*)target)[index] = float.IsNaN(value) ? (ushort)0x7fc0 : (ushort)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
    }

    /// <summary>Rounds to nearest even; NaN stays NaN (rounding could otherwise carry it to infinity).</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector512<uint> RoundedBits(Vector512<float> value)
    {
        var bits = value.AsUInt32();
        var rounded = (bits + Vector512.Create(0x7fffu) + ((bits >> 16) & Vector512<uint>.One)) >> 16;
        return Vector512.ConditionalSelect(Vector512.Equals(value, value).AsUInt32(), rounded, Vector512.Create(0x7fc0u));
    }
}
