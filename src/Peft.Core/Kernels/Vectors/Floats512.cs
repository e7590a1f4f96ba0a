using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace Peft.Core;

/// <summary>Sixteen lanes in one register of 512 bits (AVX-512). .NET computes it in two halves where the processor has none, with the same results.</summary>
public readonly unsafe struct Floats512 : IFloats<Floats512>
{
    private readonly Vector512<float> _v;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private Floats512(Vector512<float> v) => _v = v;

    static int IFloats<Floats512>.Count => 16;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats512 IFloats<Floats512>.All(float value) => new(Vector512.Create(value));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats512 IFloats<Floats512>.Load(float* source) => new(Vector512.Load(source));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static void IFloats<Floats512>.Store(float* target, Floats512 value) => value._v.Store(target);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats512 IFloats<Floats512>.LoadBFloat16(ushort* source)
    {
        var (lower, upper) = Vector256.Widen(Vector256.Load(source));
        return new((Vector512.Create(lower, upper) << 16).AsSingle());
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static void IFloats<Floats512>.StoreBFloat16(ushort* target, Floats512 value) => StoreBits(target, RoundedBits(value._v));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static void IFloats<Floats512>.StoreUpper(ushort* target, Floats512 value) => StoreBits(target, value._v.AsUInt32() >> 16);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats512 IFloats<Floats512>.RoundToBFloat16(Floats512 value) => new((RoundedBits(value._v) << 16).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats512 IFloats<Floats512>.RoundToBFloat16Plain(Floats512 value) => new((RoundedUp(value._v.AsUInt32()) & Vector512.Create(0xffff0000u)).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats512 IFloats<Floats512>.operator +(Floats512 left, Floats512 right) => new(left._v + right._v);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats512 IFloats<Floats512>.operator -(Floats512 left, Floats512 right) => new(left._v - right._v);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats512 IFloats<Floats512>.operator -(Floats512 value) => new(-value._v);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats512 IFloats<Floats512>.operator *(Floats512 left, Floats512 right) => new(left._v * right._v);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats512 IFloats<Floats512>.operator *(Floats512 left, float right) => new(left._v * right);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats512 IFloats<Floats512>.operator /(Floats512 left, Floats512 right) => new(left._v / right._v);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats512 IFloats<Floats512>.operator /(Floats512 left, float right) => new(left._v / right);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats512 IFloats<Floats512>.Sqrt(Floats512 value) => new(Vector512.Sqrt(value._v));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats512 IFloats<Floats512>.Floor(Floats512 value) => new(Vector512.Floor(value._v));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats512 IFloats<Floats512>.Max(Floats512 left, Floats512 right) => new(Vector512.Max(left._v, right._v));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats512 IFloats<Floats512>.MaxNative(Floats512 left, Floats512 right) => new(Vector512.MaxNative(left._v, right._v));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats512 IFloats<Floats512>.MinNative(Floats512 left, Floats512 right) => new(Vector512.MinNative(left._v, right._v));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats512 IFloats<Floats512>.FusedMultiplyAdd(Floats512 a, Floats512 b, Floats512 c) => new(Vector512.FusedMultiplyAdd(a._v, b._v, c._v));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats512 IFloats<Floats512>.MultiplyAddEstimate(Floats512 a, Floats512 b, Floats512 c) => new(Vector512.MultiplyAddEstimate(a._v, b._v, c._v));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats512 IFloats<Floats512>.PowerOfTwo(Floats512 exponent) => new(((Vector512.ConvertToInt32Native(exponent._v) + Vector512.Create(127)) << 23).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats512 IFloats<Floats512>.FirstLanes(float count) => new(Vector512.LessThan(Vector512.Create(0f, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), Vector512.Create(count)));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats512 IFloats<Floats512>.LoadMask(short* source)
    {
        var (lower, upper) = Vector256.Widen(Vector256.Load(source));        // sign extension keeps all bits set
        return new(Vector512.Create(lower, upper).AsSingle());
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats512 IFloats<Floats512>.Select(Floats512 mask, Floats512 left, Floats512 right) => new(Vector512.ConditionalSelect(mask._v, left._v, right._v));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats512 IFloats<Floats512>.And(Floats512 left, Floats512 right) => new((left._v.AsUInt32() & right._v.AsUInt32()).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static float IFloats<Floats512>.Sum(Floats512 value) => Vector512.Sum(value._v);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static float IFloats<Floats512>.Largest(Floats512 value) => Floats256.LargestOf(Vector256.Max(value._v.GetLower(), value._v.GetUpper()));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void StoreBits(ushort* target, Vector512<uint> upper)
    {
        Vector256.Narrow(upper.GetLower(), upper.GetUpper()).Store(target);
    }

    /// <summary>Rounds to nearest even; NaN stays NaN (rounding could otherwise carry it to infinity).</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector512<uint> RoundedBits(Vector512<float> value)
        => Vector512.ConditionalSelect(Vector512.Equals(value, value).AsUInt32(), RoundedUp(value.AsUInt32()) >> 16, Vector512.Create(0x7fc0u));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector512<uint> RoundedUp(Vector512<uint> bits) => bits + Vector512.Create(0x7fffu) + ((bits >> 16) & Vector512<uint>.One);
}
