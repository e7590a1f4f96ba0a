using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Peft.Core;

/// <summary>Eight neighbouring elements of a matrix as float32 lanes and back.</summary>
internal unsafe interface IElement256
{
    /// <summary>Eight elements.</summary>
    static abstract Vector256<float> Load(void* source, long index);

    /// <summary>Stores eight, rounded to nearest even.</summary>
    static abstract void Store(void* target, long index, Vector256<float> value);

    /// <summary>One element.</summary>
    static abstract float Get(void* source, long index);

    /// <summary>Stores one, rounded to nearest even.</summary>
    static abstract void Set(void* target, long index, float value);
}

/// <summary>float32.</summary>
internal readonly unsafe struct Single256 : IElement256
{
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector256<float> Load(void* source, long index) => Vector256.Load((float*)source + index);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Store(void* target, long index, Vector256<float> value) => value.Store((float*)target + index);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static float Get(void* source, long index) => ((float*)source)[index];

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Set(void* target, long index, float value) => ((float*)target)[index] = value;
}

/// <summary>bfloat16.</summary>
internal readonly unsafe struct Half256 : IElement256
{
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector256<float> Load(void* source, long index)
    {
        if (Avx2.IsSupported) return Vector256.ShiftLeft(Avx2.ConvertToVector256Int32((ushort*)source + index), 16).AsSingle();
        var (lower, upper) = Vector128.Widen(Vector128.Load((ushort*)source + index));
        return (Vector256.Create(lower, upper) << 16).AsSingle();
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Store(void* target, long index, Vector256<float> value)
    {
        var bits = value.AsUInt32();
        var rounded = (bits + Vector256.Create(0x7fffu) + ((bits >> 16) & Vector256<uint>.One)) >> 16;
        rounded = Vector256.ConditionalSelect(Vector256.Equals(value, value).AsUInt32(), rounded, Vector256.Create(0x7fc0u));
        Vector128.Narrow(rounded.GetLower(), rounded.GetUpper()).Store((ushort*)target + index);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static float Get(void* source, long index) => BFloat16Element.Get(source, index);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Set(void* target, long index, float value) => BFloat16Element.Set(target, index, value);
}
