using System.Runtime.CompilerServices;

namespace Peft.Quantization;

/// <summary>Row-wise int8 quantisation of (rows, columns), through fp16. Blocks are rows.</summary>
internal readonly unsafe struct RowsEncode<L, F, I>(
    void* source, ElementKind kind, long columns, float threshold, sbyte* codes, float* absmax, byte* outliers) : IBlockJob
    where L : struct, ILanes<F, I>
{
    /// <summary>Magnitudes from here on are NaN: no outlier, so that it reaches its row's maximum.</summary>
    private const int FirstNaN = 0x7F800001;

    public void Run(long first, long end)
    {
        for (long row = first; row < end; row++)
        {
            long start = row * columns;
            float maximum = Maximum(start);
            absmax[row] = maximum;
            Encode(start, maximum == 0f ? 0f : 1f / maximum * 127f);
        }
    }

    private float Maximum(long start)
    {
        I magnitude = L.Broadcast(0x7FFFFFFF), most = L.Broadcast(0);
        int limit = threshold > 0f ? BitConverter.SingleToInt32Bits(threshold) - 1 : int.MaxValue;
        I limits = L.Broadcast(limit), afterInfinity = L.Broadcast(FirstNaN);
        long i = 0;
        for (; i <= columns - L.Count; i += L.Count)
        {
            I bits = L.And(L.AsInt(Load<L, F, I>(start + i)), magnitude);
            I outlier = L.And(L.GreaterThan(bits, limits), L.GreaterThan(afterInfinity, bits));
            if (outliers is not null && L.MaxLane(L.And(outlier, L.Broadcast(1))) != 0) Mark(start, i, L.Count, limit);
            most = L.Max(most, L.Select(outlier, L.Broadcast(0), bits));
        }
        int largest = L.MaxLane(most);
        for (; i < columns; i++)
        {
            int bits = BitConverter.SingleToInt32Bits(Load<Lanes1, float, int>(start + i)) & 0x7FFFFFFF;
            if (bits > limit && bits < FirstNaN) Mark(start, i, 1, limit);
            else largest = Math.Max(largest, bits);
        }
        return BitConverter.Int32BitsToSingle(largest);
    }

    private void Mark(long start, long column, int count, int limit)
    {
        if (outliers is null) return;
        for (long i = column; i < column + count; i++)
            if ((BitConverter.SingleToInt32Bits(Load<Lanes1, float, int>(start + i)) & 0x7FFFFFFF) is var bits && bits > limit && bits < FirstNaN) outliers[i] = 1;
    }

    private void Encode(long start, float scale)
    {
        F factor = L.Broadcast(scale);
        long i = 0;
        for (; i <= columns - L.Count; i += L.Count)
            L.StoreByte((byte*)codes + start + i, Code<L, F, I>(Load<L, F, I>(start + i), factor));
        for (; i < columns; i++)
            codes[start + i] = (sbyte)Code<Lanes1, float, int>(Load<Lanes1, float, int>(start + i), scale);
    }

    /// <summary>Rounded half to even; outliers, which are above their row's maximum, are cut off.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static I1 Code<L1, F1, I1>(F1 value, F1 scale)
        where L1 : struct, ILanes<F1, I1>
        => L1.Min(L1.Max(L1.RoundToInt(L1.Multiply(value, scale)), L1.Broadcast(-127)), L1.Broadcast(127));

    /// <summary>The value as fp16 has it; that is a cast for sources of another dtype.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private F1 Load<L1, F1, I1>(long index)
        where L1 : struct, ILanes<F1, I1>
    {
        F1 value = FloatElements.Load<L1, F1, I1>(source, kind, index);
        return kind == ElementKind.Float16 ? value : Rounding.ThroughFloat16<L1, F1, I1>(value);
    }
}

/// <summary>Row-wise int8 decoding. Blocks are rows.</summary>
internal readonly unsafe struct RowsDecode<L, F, I>(
    sbyte* codes, float* absmax, long columns, bool scaleFirst, void* target, ElementKind kind) : IBlockJob
    where L : struct, ILanes<F, I>
{
    private const float Step = (float)(1.0 / 127.0);

    public void Run(long first, long end)
    {
        for (long row = first; row < end; row++)
        {
            float outer = scaleFirst ? 1f : Step, inner = scaleFirst ? absmax[row] * Step : absmax[row];
            F a = L.Broadcast(inner), b = L.Broadcast(outer);
            long i = row * columns, stop = i + columns;
            for (; i <= stop - L.Count; i += L.Count)
                FloatElements.Store<L, F, I>(target, kind, i, L.Multiply(L.Multiply(L.ToFloat(L.LoadSByte(codes + i)), a), b));
            for (; i < stop; i++)
                FloatElements.Store<Lanes1, float, int>(target, kind, i, codes[i] * inner * outer);
        }
    }
}

/// <summary>Scales the int32 products of two int8 matrices back to floating point. Blocks are rows.</summary>
internal readonly unsafe struct ProductsScale<L, F, I>(
    int* products, float* rowScales, float* columnScales, float step, float* bias, long columns, void* target, ElementKind kind) : IBlockJob
    where L : struct, ILanes<F, I>
{
    public void Run(long first, long end)
    {
        F factor = L.Broadcast(step);
        for (long row = first; row < end; row++)
        {
            F scale = L.Broadcast(rowScales[row]);
            long start = row * columns, i = 0;
            for (; i <= columns - L.Count; i += L.Count)
            {
                F value = L.Multiply(L.Multiply(L.ToFloat(L.Load(products + start + i)), L.Multiply(scale, L.Load(columnScales + i))), factor);
                if (bias is not null) value = L.Add(value, L.Load(bias + i));
                FloatElements.Store<L, F, I>(target, kind, start + i, value);
            }
            for (; i < columns; i++)
            {
                float value = products[start + i] * (rowScales[row] * columnScales[i]) * step;
                if (bias is not null) value += bias[i];
                FloatElements.Store<Lanes1, float, int>(target, kind, start + i, value);
            }
        }
    }
}
