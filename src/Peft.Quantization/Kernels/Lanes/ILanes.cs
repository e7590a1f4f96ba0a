namespace Peft.Quantization;

/// <summary>
/// The few vector operations the kernels are made of, for one vector width. Each kernel is written once, generic over this; the JIT
/// compiles it for every width. Comparisons give masks: all bits of a lane set, or none.
/// </summary>
/// <typeparam name="F">A vector of floats.</typeparam>
/// <typeparam name="I">A vector of as many 32-bit integers.</typeparam>
internal unsafe interface ILanes<F, I>
{
    static abstract int Count { get; }

    static abstract F Broadcast(float value);
    static abstract I Broadcast(int value);
    static abstract F Load(float* source);
    static abstract void Store(float* target, F value);
    static abstract I Load(int* source);

    /// <summary>Loads 16-bit values, zero-extended.</summary>
    static abstract I LoadUInt16(ushort* source);

    /// <summary>Loads bytes, zero-extended.</summary>
    static abstract I LoadByte(byte* source);

    /// <summary>Loads bytes, sign-extended.</summary>
    static abstract I LoadSByte(sbyte* source);

    /// <summary>Stores the low 16 bits of each lane.</summary>
    static abstract void StoreUInt16(ushort* target, I value);

    /// <summary>Stores the low 8 bits of each lane.</summary>
    static abstract void StoreByte(byte* target, I value);

    static abstract F Add(F a, F b);
    static abstract F Subtract(F a, F b);
    static abstract F Multiply(F a, F b);
    static abstract F Divide(F a, F b);
    static abstract F SquareRoot(F a);

    /// <summary>a * b + c, fused where the hardware has it.</summary>
    static abstract F MultiplyAdd(F a, F b, F c);

    static abstract I Add(I a, I b);
    static abstract I Subtract(I a, I b);
    static abstract I And(I a, I b);
    static abstract I Or(I a, I b);
    static abstract I ShiftLeft(I a, int count);

    /// <summary>Logical shift.</summary>
    static abstract I ShiftRight(I a, int count);

    /// <summary>Signed maximum.</summary>
    static abstract I Max(I a, I b);

    /// <summary>Signed minimum.</summary>
    static abstract I Min(I a, I b);

    /// <summary>Signed comparison.</summary>
    static abstract I GreaterThan(I a, I b);

    static abstract I GreaterThan(F a, F b);

    /// <summary>False for NaN.</summary>
    static abstract I LessThanOrEqual(F a, F b);

    /// <summary>Where the mask is set <paramref name="a"/>, else <paramref name="b"/>.</summary>
    static abstract I Select(I mask, I a, I b);

    /// <summary>Rounds half to even.</summary>
    static abstract I RoundToInt(F a);

    static abstract F ToFloat(I a);
    static abstract F AsFloat(I a);
    static abstract I AsInt(F a);

    static abstract F Gather(float* table, I index);
    static abstract I Gather(int* table, I index);

    /// <summary>One byte per lane, zero-extended; reads three bytes beyond each.</summary>
    static abstract I Gather(byte* table, I index);

    /// <summary>The largest lane, signed.</summary>
    static abstract int MaxLane(I a);

    /// <summary>The sum of the lanes.</summary>
    static abstract float Sum(F a);
}
