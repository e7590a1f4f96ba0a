using System.Runtime.CompilerServices;

namespace Peft.Quantization;

/// <summary>Conversions between fp32 and the 16-bit formats, rounding half to even, as bits in 32-bit lanes.</summary>
internal static class Rounding
{
    /// <summary>The bf16 bits of each lane, in its low half. NaN becomes 0x7FC0.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static I BFloat16Bits<L, F, I>(F value)
        where L : struct, ILanes<F, I>
    {
        var bits = L.AsInt(value);
        var odd = L.And(L.ShiftRight(bits, 16), L.Broadcast(1));
        var rounded = L.ShiftRight(L.Add(bits, L.Add(odd, L.Broadcast(0x7FFF))), 16);
        var isNaN = L.GreaterThan(L.And(bits, L.Broadcast(0x7FFFFFFF)), L.Broadcast(0x7F800000));
        return L.Select(isNaN, L.Broadcast(0x7FC0), rounded);
    }

    /// <summary>The value of bf16 bits.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static F FromBFloat16Bits<L, F, I>(I bits)
        where L : struct, ILanes<F, I>
        => L.AsFloat(L.ShiftLeft(bits, 16));

    /// <summary>The fp16 bits of each lane, in its low half; magnitudes of 65520 and more become infinity.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static I Float16Bits<L, F, I>(F value)
        where L : struct, ILanes<F, I>
    {
        var bits = L.AsInt(value);
        var sign = L.And(L.ShiftRight(bits, 16), L.Broadcast(0x8000));
        var magnitude = L.And(bits, L.Broadcast(0x7FFFFFFF));
        // Below 2^-14 the format is fixed-point: adding 0.5 lets the float adder round at the right bit.
        var small = L.Subtract(L.AsInt(L.Add(L.AsFloat(magnitude), L.Broadcast(0.5f))), L.Broadcast(0x3F000000));
        var odd = L.And(L.ShiftRight(magnitude, 13), L.Broadcast(1));
        var normal = L.ShiftRight(L.Add(magnitude, L.Add(odd, L.Broadcast(unchecked((int)0xC8000FFF)))), 13);
        var result = L.Select(L.GreaterThan(L.Broadcast(0x38800000), magnitude), small, normal);
        result = L.Select(L.GreaterThan(magnitude, L.Broadcast(0x477FEFFF)), L.Broadcast(0x7C00), result);
        result = L.Select(L.GreaterThan(magnitude, L.Broadcast(0x7F800000)), L.Broadcast(0x7E00), result);
        return L.Or(result, sign);
    }

    /// <summary>The value of fp16 bits.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static F FromFloat16Bits<L, F, I>(I bits)
        where L : struct, ILanes<F, I>
    {
        var sign = L.ShiftLeft(L.And(bits, L.Broadcast(0x8000)), 16);
        var magnitude = L.And(bits, L.Broadcast(0x7FFF));
        // The exponent is 112 too small after the shift; a product puts it right for subnormal values as well.
        var value = L.AsInt(L.Multiply(L.AsFloat(L.ShiftLeft(magnitude, 13)), L.Broadcast(BitConverter.Int32BitsToSingle(0x77800000))));
        var infinite = L.And(L.GreaterThan(magnitude, L.Broadcast(0x7BFF)), L.Broadcast(0x7F800000));
        return L.AsFloat(L.Or(L.Or(value, infinite), sign));
    }

    /// <summary>Rounds each lane to fp16 and back.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static F ThroughFloat16<L, F, I>(F value)
        where L : struct, ILanes<F, I>
        => FromFloat16Bits<L, F, I>(Float16Bits<L, F, I>(value));

    /// <summary>Rounds each lane to bf16 and back.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static F ThroughBFloat16<L, F, I>(F value)
        where L : struct, ILanes<F, I>
        => FromBFloat16Bits<L, F, I>(BFloat16Bits<L, F, I>(value));
}
