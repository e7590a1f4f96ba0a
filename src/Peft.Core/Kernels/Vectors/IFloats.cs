namespace Peft.Core;

/// <summary>
/// A vector of float32 lanes of one width. Kernels are written once, generic over this; the JIT compiles them for each width that is used
/// (<see cref="VectorLoops"/> chooses). All of them have sixteen lanes in the end, held in one, two or four registers, so that sums run in
/// the same order, and give the same bits, on every processor.
/// </summary>
/// <typeparam name="TVector">The vector itself.</typeparam>
public unsafe interface IFloats<TVector>
    where TVector : struct, IFloats<TVector>
{
    /// <summary>How many lanes.</summary>
    static abstract int Count { get; }

    /// <summary>The same value in all lanes.</summary>
    static abstract TVector All(float value);

    /// <summary>Loads float32.</summary>
    static abstract TVector Load(float* source);

    /// <summary>Stores float32.</summary>
    static abstract void Store(float* target, TVector value);

    /// <summary>Loads bfloat16.</summary>
    static abstract TVector LoadBFloat16(ushort* source);

    /// <summary>Stores bfloat16, rounded to nearest even.</summary>
    static abstract void StoreBFloat16(ushort* target, TVector value);

    /// <summary>Stores the upper half of each lane: bfloat16 of values that are rounded to it already.</summary>
    static abstract void StoreUpper(ushort* target, TVector value);

    /// <summary>Rounded to bfloat16, to nearest even; NaN becomes the one that torch stores.</summary>
    static abstract TVector RoundToBFloat16(TVector value);

    /// <summary>The same at two thirds of the cost for values whose NaNs have no bits that bfloat16 lacks (those of the processor, and of
    /// bfloat16 operands, have none); such a NaN stays as it is.</summary>
    static abstract TVector RoundToBFloat16Plain(TVector value);

    /// <summary>Sum.</summary>
    static abstract TVector operator +(TVector left, TVector right);

    /// <summary>Difference.</summary>
    static abstract TVector operator -(TVector left, TVector right);

    /// <summary>The opposite sign.</summary>
    static abstract TVector operator -(TVector value);

    /// <summary>Product.</summary>
    static abstract TVector operator *(TVector left, TVector right);

    /// <summary>Product with one value for all lanes.</summary>
    static abstract TVector operator *(TVector left, float right);

    /// <summary>Quotient.</summary>
    static abstract TVector operator /(TVector left, TVector right);

    /// <summary>Quotient by one value for all lanes.</summary>
    static abstract TVector operator /(TVector left, float right);

    /// <summary>Square root.</summary>
    static abstract TVector Sqrt(TVector value);

    /// <summary>The largest whole number that is not above.</summary>
    static abstract TVector Floor(TVector value);

    /// <summary>The larger one; NaN if one is.</summary>
    static abstract TVector Max(TVector left, TVector right);

    /// <summary>The larger one, <paramref name="right"/> if it is NaN.</summary>
    static abstract TVector MaxNative(TVector left, TVector right);

    /// <summary>The smaller one, <paramref name="right"/> if it is NaN.</summary>
    static abstract TVector MinNative(TVector left, TVector right);

    /// <summary>a · b + c, rounded once.</summary>
    static abstract TVector FusedMultiplyAdd(TVector a, TVector b, TVector c);

    /// <summary>a · b + c, rounded once where the processor can.</summary>
    static abstract TVector MultiplyAddEstimate(TVector a, TVector b, TVector c);

    /// <summary>Two to the power of whole numbers from -126 to 127.</summary>
    static abstract TVector PowerOfTwo(TVector exponent);

    /// <summary>A mask: all bits set in the lanes before <paramref name="count"/>.</summary>
    static abstract TVector FirstLanes(float count);

    /// <summary>A mask from 16-bit ones: all bits set, or none.</summary>
    static abstract TVector LoadMask(short* source);

    /// <summary>Where the mask is set <paramref name="left"/>, else <paramref name="right"/>.</summary>
    static abstract TVector Select(TVector mask, TVector left, TVector right);

    /// <summary>The bits that both have: where a mask is set the value, else zero.</summary>
    static abstract TVector And(TVector left, TVector right);

    /// <summary>The sum of the lanes: that of the lower half plus that of the upper half, and so on down.</summary>
    static abstract float Sum(TVector value);

    /// <summary>The largest lane; NaN if one is.</summary>
    static abstract float Largest(TVector value);
}
