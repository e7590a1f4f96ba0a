using System.Runtime.CompilerServices;
using static TorchSharp.torch;

namespace Peft.Quantization;

/// <summary>A floating-point dtype the kernels read and write.</summary>
internal enum ElementKind
{
    Float32,
    BFloat16,
    Float16,
}

/// <summary>Vector loads and stores of the three dtypes as fp32 lanes.</summary>
internal static unsafe class FloatElements
{
    public static ElementKind KindOf(ScalarType dtype) => dtype switch
    {
        ScalarType.Float32 => ElementKind.Float32,
        ScalarType.BFloat16 => ElementKind.BFloat16,
        ScalarType.Float16 => ElementKind.Float16,
        _ => throw new UnsupportedWeightDtypeException(dtype),
    };

    /// <summary>Loads one vector from element <paramref name="index"/> on.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static F Load<L, F, I>(void* source, ElementKind kind, long index)
        where L : struct, ILanes<F, I>
        => kind switch
        {
            ElementKind.Float32 => L.Load((float*)source + index),
            ElementKind.BFloat16 => Rounding.FromBFloat16Bits<L, F, I>(L.LoadUInt16((ushort*)source + index)),
            _ => Rounding.FromFloat16Bits<L, F, I>(L.LoadUInt16((ushort*)source + index)),
        };

    /// <summary>Rounds and stores one vector from element <paramref name="index"/> on.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Store<L, F, I>(void* target, ElementKind kind, long index, F value)
        where L : struct, ILanes<F, I>
    {
        switch (kind)
        {
            case ElementKind.Float32: L.Store((float*)target + index, value); break;
            case ElementKind.BFloat16: L.StoreUInt16((ushort*)target + index, Rounding.BFloat16Bits<L, F, I>(value)); break;
            default: L.StoreUInt16((ushort*)target + index, Rounding.Float16Bits<L, F, I>(value)); break;
        }
    }

    /// <summary>Copies <paramref name="count"/> elements to fp32 and fills up with zeros to <paramref name="padded"/>.</summary>
    public static void ToFloat<L, F, I>(void* source, ElementKind kind, long first, int count, float* target, int padded)
        where L : struct, ILanes<F, I>
    {
        int i = 0;
        for (; i <= count - L.Count; i += L.Count) L.Store(target + i, Load<L, F, I>(source, kind, first + i));
        for (; i < count; i++) target[i] = Load<Lanes1, float, int>(source, kind, first + i);
        for (; i < padded; i++) target[i] = 0f;
    }
}
