using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace Peft.Core;

/// <summary>Four lanes in one register of 128 bits (SSE, AdvSimd).</summary>
public readonly unsafe struct Floats128 : IFloats<Floats128>
{
    private readonly Vector128<float> _v;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private Floats128(Vector128<float> v) => _v = v;

    static int IFloats<Floats128>.Count => 4;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats128 IFloats<Floats128>.All(float value) => new(Vector128.Create(value));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats128 IFloats<Floats128>.Load(float* source) => new(Vector128.Load(source));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static void IFloats<Floats128>.Store(float* target, Floats128 value) => value._v.Store(target);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats128 IFloats<Floats128>.LoadBFloat16(ushort* source)
        => new((Vector128.WidenLower(Vector128.CreateScalarUnsafe(Unsafe.ReadUnaligned<ulong>(source)).AsUInt16()) << 16).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static void IFloats<Floats128>.StoreBFloat16(ushort* target, Floats128 value) => StoreBits(target, RoundedBits(value._v));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static void IFloats<Floats128>.StoreUpper(ushort* target, Floats128 value) => StoreBits(target, value._v.AsUInt32() >> 16);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats128 IFloats<Floats128>.RoundToBFloat16(Floats128 value) => new((RoundedBits(value._v) << 16).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats128 IFloats<Floats128>.RoundToBFloat16Plain(Floats128 value) => new((RoundedUp(value._v.AsUInt32()) & Vector128.Create(0xffff0000u)).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats128 IFloats<Floats128>.operator +(Floats128 left, Floats128 right) => new(left._v + right._v);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats128 IFloats<Floats128>.operator -(Floats128 left, Floats128 right) => new(left._v - right._v);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats128 IFloats<Floats128>.operator -(Floats128 value) => new(-value._v);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats128 IFloats<Floats128>.operator *(Floats128 left, Floats128 right) => new(left._v * right._v);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats128 IFloats<Floats128>.operator *(Floats128 left, float right) => new(left._v * right);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats128 IFloats<Floats128>.operator /(Floats128 left, Floats128 right) => new(left._v / right._v);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats128 IFloats<Floats128>.operator /(Floats128 left, float right) => new(left._v / right);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats128 IFloats<Floats128>.Sqrt(Floats128 value) => new(Vector128.Sqrt(value._v));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats128 IFloats<Floats128>.Floor(Floats128 value) => new(Vector128.Floor(value._v));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats128 IFloats<Floats128>.Max(Floats128 left, Floats128 right) => new(Vector128.Max(left._v, right._v));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats128 IFloats<Floats128>.MaxNative(Floats128 left, Floats128 right) => new(Vector128.MaxNative(left._v, right._v));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats128 IFloats<Floats128>.MinNative(Floats128 left, Floats128 right) => new(Vector128.MinNative(left._v, right._v));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats128 IFloats<Floats128>.FusedMultiplyAdd(Floats128 a, Floats128 b, Floats128 c) => new(Vector128.FusedMultiplyAdd(a._v, b._v, c._v));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats128 IFloats<Floats128>.MultiplyAddEstimate(Floats128 a, Floats128 b, Floats128 c) => new(Vector128.MultiplyAddEstimate(a._v, b._v, c._v));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats128 IFloats<Floats128>.PowerOfTwo(Floats128 exponent) => new(((Vector128.ConvertToInt32Native(exponent._v) + Vector128.Create(127)) << 23).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats128 IFloats<Floats128>.FirstLanes(float count) => new(Vector128.LessThan(Vector128.Create(0f, 1, 2, 3), Vector128.Create(count)));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats128 IFloats<Floats128>.LoadMask(short* source) => new(Vector128.WidenLower(Vector128.CreateScalarUnsafe(Unsafe.ReadUnaligned<long>(source)).AsInt16()).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats128 IFloats<Floats128>.Select(Floats128 mask, Floats128 left, Floats128 right) => new(Vector128.ConditionalSelect(mask._v, left._v, right._v));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static Floats128 IFloats<Floats128>.And(Floats128 left, Floats128 right) => new((left._v.AsUInt32() & right._v.AsUInt32()).AsSingle());

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static float IFloats<Floats128>.Sum(Floats128 value) => Vector128.Sum(value._v);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static float IFloats<Floats128>.Largest(Floats128 value) => LargestOf(value._v);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static float LargestOf(Vector128<float> v) => MathF.Max(MathF.Max(v[0], v[1]), MathF.Max(v[2], v[3]));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void StoreBits(ushort* target, Vector128<uint> upper)
    {
        Unsafe.WriteUnaligned(target, Vector128.Narrow(upper, upper).AsUInt64().ToScalar());
    }

    /// <summary>Rounds to nearest even; NaN stays NaN (rounding could otherwise carry it to infinity).</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector128<uint> RoundedBits(Vector128<float> value)
        => Vector128.ConditionalSelect(Vector128.Equals(value, value).AsUInt32(), RoundedUp(value.AsUInt32()) >> 16, Vector128.Create(0x7fc0u));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector128<uint> RoundedUp(Vector128<uint> bits) => bits + Vector128.Create(0x7fffu) + ((bits >> 16) & Vector128<uint>.One);
}
