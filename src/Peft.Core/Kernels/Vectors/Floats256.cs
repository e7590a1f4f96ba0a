using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Peft.Core;

/// <summary>Eight lanes in one register of 256 bits (AVX2).</summary>
public readonly unsafe struct Floats256 : IFloats<Floats256>
{
    private readonly Vector256<float> _v;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private Floats256(Vector256<float> v) => _v = v;

    static int IFloats<Floats256>.Count => 8;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats256 IFloats<Floats256>.All(float value) => new(Vector256.Create(value));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats256 IFloats<Floats256>.Load(float* source) => new(Vector256.Load(source));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static void IFloats<Floats256>.Store(float* target, Floats256 value) => value._v.Store(target);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats256 IFloats<Floats256>.LoadBFloat16(ushort* source)
        => new((Vector256.WidenLower(Vector128.Load(source).ToVector256Unsafe()) << 16).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static void IFloats<Floats256>.StoreBFloat16(ushort* target, Floats256 value) => StoreBits(target, RoundedBits(value._v));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static void IFloats<Floats256>.StoreUpper(ushort* target, Floats256 value) => StoreBits(target, value._v.AsUInt32() >> 16);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats256 IFloats<Floats256>.RoundToBFloat16(Floats256 value) => new((RoundedBits(value._v) << 16).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats256 IFloats<Floats256>.RoundToBFloat16Plain(Floats256 value) => new((RoundedUp(value._v.AsUInt32()) & Vector256.Create(0xffff0000u)).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats256 IFloats<Floats256>.operator +(Floats256 left, Floats256 right) => new(left._v + right._v);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats256 IFloats<Floats256>.operator -(Floats256 left, Floats256 right) => new(left._v - right._v);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats256 IFloats<Floats256>.operator -(Floats256 value) => new(-value._v);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats256 IFloats<Floats256>.operator *(Floats256 left, Floats256 right) => new(left._v * right._v);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats256 IFloats<Floats256>.operator *(Floats256 left, float right) => new(left._v * right);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats256 IFloats<Floats256>.operator /(Floats256 left, Floats256 right) => new(left._v / right._v);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats256 IFloats<Floats256>.operator /(Floats256 left, float right) => new(left._v / right);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats256 IFloats<Floats256>.Sqrt(Floats256 value) => new(Vector256.Sqrt(value._v));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats256 IFloats<Floats256>.Floor(Floats256 value) => new(Vector256.Floor(value._v));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats256 IFloats<Floats256>.Max(Floats256 left, Floats256 right) => new(Vector256.Max(left._v, right._v));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats256 IFloats<Floats256>.MaxNative(Floats256 left, Floats256 right) => new(Vector256.MaxNative(left._v, right._v));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats256 IFloats<Floats256>.MinNative(Floats256 left, Floats256 right) => new(Vector256.MinNative(left._v, right._v));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats256 IFloats<Floats256>.FusedMultiplyAdd(Floats256 a, Floats256 b, Floats256 c) => new(Vector256.FusedMultiplyAdd(a._v, b._v, c._v));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats256 IFloats<Floats256>.MultiplyAddEstimate(Floats256 a, Floats256 b, Floats256 c) => new(Vector256.MultiplyAddEstimate(a._v, b._v, c._v));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats256 IFloats<Floats256>.PowerOfTwo(Floats256 exponent) => new(((Vector256.ConvertToInt32Native(exponent._v) + Vector256.Create(127)) << 23).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats256 IFloats<Floats256>.FirstLanes(float count) => new(Vector256.LessThan(Vector256.Create(0f, 1, 2, 3, 4, 5, 6, 7), Vector256.Create(count)));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats256 IFloats<Floats256>.LoadMask(short* source) => new(Vector256.WidenLower(Vector128.Load(source).ToVector256Unsafe()).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats256 IFloats<Floats256>.Select(Floats256 mask, Floats256 left, Floats256 right) => new(Vector256.ConditionalSelect(mask._v, left._v, right._v));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats256 IFloats<Floats256>.And(Floats256 left, Floats256 right) => new((left._v.AsUInt32() & right._v.AsUInt32()).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static float IFloats<Floats256>.Sum(Floats256 value) => Vector256.Sum(value._v);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static float IFloats<Floats256>.Largest(Floats256 value) => LargestOf(value._v);

    /// <summary>The upper halves of the lanes of two vectors.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static void StoreUpper(ushort* target, Floats256 first, Floats256 second)
    {
        var (a, b) = (first._v.AsUInt32() >> 16, second._v.AsUInt32() >> 16);
        if (Avx2.IsSupported) Avx2.Permute4x64(Avx2.PackUnsignedSaturate(a.AsInt32(), b.AsInt32()).AsUInt64(), 0b11_01_10_00).AsUInt16().Store(target);
        else Vector256.Narrow(a, b).Store(target);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static float LargestOf(Vector256<float> v) => Floats128.LargestOf(Vector128.Max(v.GetLower(), v.GetUpper()));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void StoreBits(ushort* target, Vector256<uint> upper)
    {
        if (Sse41.IsSupported) Sse41.PackUnsignedSaturate(upper.GetLower().AsInt32(), upper.GetUpper().AsInt32()).Store(target);
        else Vector128.Narrow(upper.GetLower(), upper.GetUpper()).Store(target);
    }

    /// <summary>Rounds to nearest even; NaN stays NaN (rounding could otherwise carry it to infinity).</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector256<uint> RoundedBits(Vector256<float> value)
        => Vector256.ConditionalSelect(Vector256.Equals(value, value).AsUInt32(), RoundedUp(value.AsUInt32()) >> 16, Vector256.Create(0x7fc0u));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector256<uint> RoundedUp(Vector256<uint> bits) => bits + Vector256.Create(0x7fffu) + ((bits >> 16) & Vector256<uint>.One);
}
