using System.Runtime.CompilerServices;

namespace Peft.Core;

/// <summary>
/// How neighbouring elements of a tensor become fp32 lanes and back, so that a kernel is written once for all dtypes.
/// Implementations are empty structs; a kernel generic over them is specialised by the JIT.
/// </summary>
public unsafe interface IVectorElement
{
    /// <summary>Bytes of one element.</summary>
    static abstract int Size { get; }

    /// <summary>Elements from <paramref name="source"/> + <paramref name="index"/>, one for each lane.</summary>
    static abstract TVector Load<TVector>(void* source, long index)
        where TVector : struct, IFloats<TVector>;

    /// <summary>Stores all lanes, rounded to nearest even.</summary>
    static abstract void Store<TVector>(void* target, long index, TVector value)
        where TVector : struct, IFloats<TVector>;

    /// <summary>Stores lanes that <see cref="Round"/> or <see cref="RoundPlain"/> has given.</summary>
    static abstract void StoreRounded<TVector>(void* target, long index, TVector value)
        where TVector : struct, IFloats<TVector>;

    /// <summary>What storing and loading again would give.</summary>
    static abstract TVector Round<TVector>(TVector value)
        where TVector : struct, IFloats<TVector>;

    /// <summary>The same for results of loaded elements and finite numbers, faster: a NaN keeps its bits.</summary>
    static abstract TVector RoundPlain<TVector>(TVector value)
        where TVector : struct, IFloats<TVector>;

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
    public static TVector Load<TVector>(void* source, long index)
        where TVector : struct, IFloats<TVector>
        => TVector.Load((float*)source + index);

    /// <inheritdoc/>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Store<TVector>(void* target, long index, TVector value)
        where TVector : struct, IFloats<TVector>
        => TVector.Store((float*)target + index, value);

    /// <inheritdoc/>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void StoreRounded<TVector>(void* target, long index, TVector value)
        where TVector : struct, IFloats<TVector>
        => TVector.Store((float*)target + index, value);

    /// <inheritdoc/>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static TVector Round<TVector>(TVector value)
        where TVector : struct, IFloats<TVector>
        => value;

    /// <inheritdoc/>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static TVector RoundPlain<TVector>(TVector value)
        where TVector : struct, IFloats<TVector>
        => value;

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
    public static TVector Load<TVector>(void* source, long index)
        where TVector : struct, IFloats<TVector>
        => TVector.LoadBFloat16((ushort*)source + index);

    /// <inheritdoc/>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Store<TVector>(void* target, long index, TVector value)
        where TVector : struct, IFloats<TVector>
        => TVector.StoreBFloat16((ushort*)target + index, value);

    /// <inheritdoc/>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void StoreRounded<TVector>(void* target, long index, TVector value)
        where TVector : struct, IFloats<TVector>
        => TVector.StoreUpper((ushort*)target + index, value);

    /// <inheritdoc/>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static TVector Round<TVector>(TVector value)
        where TVector : struct, IFloats<TVector>
        => TVector.RoundToBFloat16(value);

    /// <inheritdoc/>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static TVector RoundPlain<TVector>(TVector value)
        where TVector : struct, IFloats<TVector>
        => TVector.RoundToBFloat16Plain(value);

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
}
