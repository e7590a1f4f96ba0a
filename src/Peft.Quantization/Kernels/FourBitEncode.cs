using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Peft.Quantization;

/// <summary>4-bit quantisation of whole blocks: maximum, scaling, nearest code, packing; each pass stays in the first-level cache.</summary>
internal readonly unsafe struct FourBitEncode<L, F, I>(
    void* source, ElementKind kind, long count, int blockSize, FourBitTable table, byte* packed, float* absmax) : IBlockJob
    where L : struct, ILanes<F, I>
{
    public void Run(long first, long end)
    {
        float* scratch = stackalloc float[blockSize + 16];
        byte* codes = stackalloc byte[blockSize + 16];
        bool reorder = table.Type != QuantType.Nf4;
        for (long block = first; block < end; block++)
        {
            long start = block * blockSize;
            int n = (int)Math.Min(blockSize, count - start);
            int padded = (n + 15) & ~15;
            float* values = scratch;
            if (kind == ElementKind.Float32 && n == padded) values = (float*)source + start;
            else FloatElements.ToFloat<L, F, I>(source, kind, start, n, scratch, padded);
            float scale = BlockMaximum.Of<L, F, I>(values, padded);
            absmax[block] = BlockMaximum.Guard(scale, n == blockSize);
            Codes(values, padded, BlockMaximum.Guard(scale, full: false), n == blockSize, codes);
            Pack(codes, (n + 1) / 2, packed + start / 2, reorder);
        }
    }

    /// <summary>15 less the midpoints that the scaled value does not exceed; NaN, which no comparison holds for, gives 15.</summary>
    private void Codes(float* values, int padded, float scale, bool full, byte* codes)
    {
        float reciprocal = 1f / scale;
        F factor = L.Broadcast(full ? reciprocal : scale);
        float* midpoints = table.MidpointsPointer;
        if (typeof(L) == typeof(Lanes512))
        {
            CodesAvx512(values, padded, full ? reciprocal : scale, full, codes, midpoints);
            return;
        }
        if (typeof(L) == typeof(Lanes256))
        {
            CodesAvx2(values, padded, full ? reciprocal : scale, full, codes, midpoints);
            return;
        }
        for (int i = 0; i < padded; i += L.Count)
        {
            F value = L.Load(values + i);
            value = full ? L.Multiply(value, factor) : L.Divide(value, factor);
            I code = L.Broadcast(15);
            for (int j = 0; j < 15; j++) code = L.Add(code, L.LessThanOrEqual(value, L.Broadcast(midpoints[j])));
            L.StoreByte(codes + i, code);
        }
    }

    /// <summary>A binary search in registers: the sixteen midpoints are one vector, looked up by a permutation.</summary>
    private static void CodesAvx512(float* values, int padded, float factor, bool full, byte* codes, float* midpoints)
    {
        var table = Vector512.Load(midpoints);
        var middle = Vector512.Create(midpoints[7]);
        var f = Vector512.Create(factor);
        for (int i = 0; i < padded; i += 16)
        {
            var value = Vector512.Load(values + i);
            value = full ? value * f : value / f;
            var code = Above(value, middle, 8);
            code += Above(value, Avx512F.PermuteVar16x32(table, code + Vector512.Create(3)), 4);
            code += Above(value, Avx512F.PermuteVar16x32(table, code + Vector512.Create(1)), 2);
            code += Above(value, Avx512F.PermuteVar16x32(table, code), 1);
            Avx512F.ConvertToVector128Byte(code).Store(codes + i);
        }
    }

    private static Vector512<int> Above(Vector512<float> value, Vector512<float> midpoint, int weight)
        => Vector512.ConditionalSelect(Vector512.LessThanOrEqual(value, midpoint).AsInt32(), Vector512<int>.Zero, Vector512.Create(weight));

    /// <summary>The same search in halves of the table: four midpoints for the third comparison, the eight even ones for the last.</summary>
    private static void CodesAvx2(float* values, int padded, float factor, bool full, byte* codes, float* m)
    {
        var (middle, lower, upper) = (Vector256.Create(m[7]), Vector256.Create(m[3]), Vector256.Create(m[11]));
        var third = Vector256.Create(m[1], m[5], m[9], m[13], 0, 0, 0, 0);
        var last = Vector256.Create(m[0], m[2], m[4], m[6], m[8], m[10], m[12], m[14]);
        var f = Vector256.Create(factor);
        for (int i = 0; i < padded; i += 16)
        {
            var (a, b) = (Vector256.Load(values + i), Vector256.Load(values + i + 8));
            var first = Code(full ? a * f : a / f);
            var second = Code(full ? b * f : b / f);
            var words = Avx2.Permute4x64(Avx2.PackSignedSaturate(first, second).AsInt64(), 0b11_01_10_00).AsInt16();
            Sse2.PackUnsignedSaturate(words.GetLower(), words.GetUpper()).Store(codes + i);
        }

        // A comparison gives -1 where the value is not above.
        Vector256<int> Code(Vector256<float> value)
        {
            var one = Vector256.LessThanOrEqual(value, middle);
            var code = Vector256<int>.One + one.AsInt32();
            code = code + code + Vector256<int>.One + Vector256.LessThanOrEqual(value, Avx.BlendVariable(upper, lower, one)).AsInt32();
            code = code + code + Vector256<int>.One + Vector256.LessThanOrEqual(value, Avx2.PermuteVar8x32(third, code)).AsInt32();
            return code + code + Vector256<int>.One + Vector256.LessThanOrEqual(value, Avx2.PermuteVar8x32(last, code)).AsInt32();
        }
    }

    private void Pack(byte* codes, int bytes, byte* target, bool reorder)
    {
        byte* order = table.OrderPointer;
        int i = 0;
        if (typeof(L) != typeof(Lanes1))
        {
            var orderVector = Vector128.Load(order);
            for (; i <= bytes - 8; i += 8)
            {
                var pair = Vector128.Load(codes + 2 * i);
                if (reorder) pair = Vector128.ShuffleNative(orderVector, pair);
                var words = pair.AsUInt16();
                words = (words << 4) | (words >>> 8);
                System.Runtime.CompilerServices.Unsafe.WriteUnaligned(target + i, Vector128.Narrow(words, words).AsUInt64().ToScalar());
            }
        }
        for (; i < bytes; i++)
        {
            int high = codes[2 * i], low = codes[2 * i + 1];
            target[i] = (byte)(reorder ? (order[high] << 4) | order[low] : (high << 4) | low);
        }
    }
}
