using System.Runtime.CompilerServices;

namespace Peft.Core;

/// <summary>Twice as many lanes as <typeparamref name="THalf"/> has, in two of it: independent of each other, which hides the latency of long chains.</summary>
/// <typeparam name="THalf">The lower and the upper half.</typeparam>
public readonly unsafe struct FloatPair<THalf> : IFloats<FloatPair<THalf>>
    where THalf : struct, IFloats<THalf>
{
    private readonly THalf _a;
    private readonly THalf _b;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private FloatPair(THalf a, THalf b)
    {
        _a = a;
        _b = b;
    }

    static int IFloats<FloatPair<THalf>>.Count => 2 * THalf.Count;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static FloatPair<THalf> IFloats<FloatPair<THalf>>.All(float value)
    {
        THalf half = THalf.All(value);
        return new(half, half);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static FloatPair<THalf> IFloats<FloatPair<THalf>>.Load(float* source) => new(THalf.Load(source), THalf.Load(source + THalf.Count));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static FloatPair<THalf> IFloats<FloatPair<THalf>>.LoadBFloat16(ushort* source) => new(THalf.LoadBFloat16(source), THalf.LoadBFloat16(source + THalf.Count));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static void IFloats<FloatPair<THalf>>.Store(float* target, FloatPair<THalf> value)
    {
        THalf.Store(target, value._a);
        THalf.Store(target + THalf.Count, value._b);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static void IFloats<FloatPair<THalf>>.StoreBFloat16(ushort* target, FloatPair<THalf> value)
    {
        THalf.StoreBFloat16(target, value._a);
        THalf.StoreBFloat16(target + THalf.Count, value._b);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static void IFloats<FloatPair<THalf>>.StoreUpper(ushort* target, FloatPair<THalf> value)
    {
        if (typeof(THalf) == typeof(Floats256))
        {
            Floats256.StoreUpper(target, Unsafe.BitCast<THalf, Floats256>(value._a), Unsafe.BitCast<THalf, Floats256>(value._b));
            return;
        }
        THalf.StoreUpper(target, value._a);
        THalf.StoreUpper(target + THalf.Count, value._b);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static FloatPair<THalf> IFloats<FloatPair<THalf>>.RoundToBFloat16(FloatPair<THalf> value) => new(THalf.RoundToBFloat16(value._a), THalf.RoundToBFloat16(value._b));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static FloatPair<THalf> IFloats<FloatPair<THalf>>.RoundToBFloat16Plain(FloatPair<THalf> value) => new(THalf.RoundToBFloat16Plain(value._a), THalf.RoundToBFloat16Plain(value._b));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static FloatPair<THalf> IFloats<FloatPair<THalf>>.operator +(FloatPair<THalf> left, FloatPair<THalf> right) => new(left._a + right._a, left._b + right._b);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static FloatPair<THalf> IFloats<FloatPair<THalf>>.operator -(FloatPair<THalf> left, FloatPair<THalf> right) => new(left._a - right._a, left._b - right._b);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static FloatPair<THalf> IFloats<FloatPair<THalf>>.operator -(FloatPair<THalf> value) => new(-value._a, -value._b);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static FloatPair<THalf> IFloats<FloatPair<THalf>>.operator *(FloatPair<THalf> left, FloatPair<THalf> right) => new(left._a * right._a, left._b * right._b);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static FloatPair<THalf> IFloats<FloatPair<THalf>>.operator *(FloatPair<THalf> left, float right)
    {
        THalf both = THalf.All(right);
        return new(left._a * both, left._b * both);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static FloatPair<THalf> IFloats<FloatPair<THalf>>.operator /(FloatPair<THalf> left, FloatPair<THalf> right) => new(left._a / right._a, left._b / right._b);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static FloatPair<THalf> IFloats<FloatPair<THalf>>.operator /(FloatPair<THalf> left, float right)
    {
        THalf both = THalf.All(right);
        return new(left._a / both, left._b / both);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static FloatPair<THalf> IFloats<FloatPair<THalf>>.Sqrt(FloatPair<THalf> value) => new(THalf.Sqrt(value._a), THalf.Sqrt(value._b));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static FloatPair<THalf> IFloats<FloatPair<THalf>>.Floor(FloatPair<THalf> value) => new(THalf.Floor(value._a), THalf.Floor(value._b));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static FloatPair<THalf> IFloats<FloatPair<THalf>>.Max(FloatPair<THalf> left, FloatPair<THalf> right) => new(THalf.Max(left._a, right._a), THalf.Max(left._b, right._b));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static FloatPair<THalf> IFloats<FloatPair<THalf>>.MaxNative(FloatPair<THalf> left, FloatPair<THalf> right) => new(THalf.MaxNative(left._a, right._a), THalf.MaxNative(left._b, right._b));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static FloatPair<THalf> IFloats<FloatPair<THalf>>.MinNative(FloatPair<THalf> left, FloatPair<THalf> right) => new(THalf.MinNative(left._a, right._a), THalf.MinNative(left._b, right._b));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static FloatPair<THalf> IFloats<FloatPair<THalf>>.FusedMultiplyAdd(FloatPair<THalf> a, FloatPair<THalf> b, FloatPair<THalf> c) => new(THalf.FusedMultiplyAdd(a._a, b._a, c._a), THalf.FusedMultiplyAdd(a._b, b._b, c._b));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static FloatPair<THalf> IFloats<FloatPair<THalf>>.MultiplyAddEstimate(FloatPair<THalf> a, FloatPair<THalf> b, FloatPair<THalf> c) => new(THalf.MultiplyAddEstimate(a._a, b._a, c._a), THalf.MultiplyAddEstimate(a._b, b._b, c._b));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static FloatPair<THalf> IFloats<FloatPair<THalf>>.PowerOfTwo(FloatPair<THalf> exponent) => new(THalf.PowerOfTwo(exponent._a), THalf.PowerOfTwo(exponent._b));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static FloatPair<THalf> IFloats<FloatPair<THalf>>.FirstLanes(float count) => new(THalf.FirstLanes(count), THalf.FirstLanes(count - THalf.Count));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static FloatPair<THalf> IFloats<FloatPair<THalf>>.LoadMask(short* source) => new(THalf.LoadMask(source), THalf.LoadMask(source + THalf.Count));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static FloatPair<THalf> IFloats<FloatPair<THalf>>.Select(FloatPair<THalf> mask, FloatPair<THalf> left, FloatPair<THalf> right) => new(THalf.Select(mask._a, left._a, right._a), THalf.Select(mask._b, left._b, right._b));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static FloatPair<THalf> IFloats<FloatPair<THalf>>.And(FloatPair<THalf> left, FloatPair<THalf> right) => new(THalf.And(left._a, right._a), THalf.And(left._b, right._b));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static float IFloats<FloatPair<THalf>>.Sum(FloatPair<THalf> value) => THalf.Sum(value._a) + THalf.Sum(value._b);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    static float IFloats<FloatPair<THalf>>.Largest(FloatPair<THalf> value) => THalf.Largest(THalf.Max(value._a, value._b));
}
