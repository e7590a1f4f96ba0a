using System.Buffers;
using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using Peft.Core;

namespace Peft.Quantization;

/// <summary>
/// <c>x Wᵀ</c> for a handful of rows of x and a 4-bit W whose rows are made of whole blocks, at 256 bits: sixty-four codes are looked up from one load, in
/// the order in which they come out, and x is put into that order once. Sums are float32.
/// </summary>
internal static unsafe class FourBitFewRows
{
    private const int Chunk = 64;
    private const int MostRows = 4;

    /// <summary>Whether the kernel can run.</summary>
    /// <param name="rows">Rows of x.</param>
    /// <param name="columns">Columns of the weight.</param>
    /// <param name="blockSize">Values per block.</param>
    public static bool CanRun(long rows, long columns, int blockSize)
        => Avx2.IsSupported && Fma.IsSupported && rows is > 0 and <= MostRows && columns % Chunk == 0 && blockSize % Chunk == 0;

    /// <summary>Computes on libtorch's threads.</summary>
    /// <param name="packed">The (outputs, columns) weight's codes.</param>
    /// <param name="scales">The block scales.</param>
    /// <param name="outputs">Rows of the weight.</param>
    /// <param name="columns">Its columns.</param>
    /// <param name="blockSize">Values per block.</param>
    /// <param name="table">The code.</param>
    /// <param name="through">The dtype that the weight's values are rounded to.</param>
    /// <param name="x">(rows, columns).</param>
    /// <param name="rows">Rows of x.</param>
    /// <param name="y">(rows, outputs), written.</param>
    public static void Run(
        byte* packed, ScalePointers scales, long outputs, long columns, int blockSize, FourBitTable table, ElementKind through, float* x, int rows, float* y)
    {
        float[] ordered = ArrayPool<float>.Shared.Rent((int)(rows * columns));
        try
        {
            fixed (float* pinned = ordered)
            {
                float* input = pinned;
                bool bytes = rows == 1 && through == ElementKind.BFloat16;
                if (bytes) FourBitByteTables.Order(x, columns, input);
                else Order(x, rows * columns, input);
                CpuParallel.For(outputs, 32, (begin, end) =>
                {
                    for (long o = begin; o < end; o++)
                    {
                        if (bytes) y[o] = FourBitByteTables.Dot(packed, scales, o, columns, blockSize, table, input);
                        else if (rows == 1) y[o] = One(packed, scales, o, columns, blockSize, table, through, input);
                        else Several(packed, scales, o, columns, blockSize, table, through, input, rows, y + o, outputs);
                    }
                });
            }
        }
        finally
        {
            ArrayPool<float>.Shared.Return(ordered);
        }
    }

    /// <summary>Of each eight bytes' worth of a 32-bit lane, nibble j of every lane comes out at once: the high nibble of a byte is the earlier value.</summary>
    private static void Order(float* x, long count, float* target)
    {
        for (long chunk = 0; chunk < count; chunk += Chunk)
            for (int nibble = 0; nibble < 8; nibble++)
                for (int lane = 0; lane < 8; lane++) target[chunk + nibble * 8 + lane] = x[chunk + lane * 8 + (nibble ^ 1)];
    }

    private static float One(byte* packed, ScalePointers scales, long row, long columns, int blockSize, FourBitTable table, ElementKind through, float* x)
    {
        Vector256<float> s0 = default, s1 = default, s2 = default, s3 = default;
        byte* codes = packed + row * columns / 2;
        long position = row * columns, block = position / blockSize;
        long left = (block + 1) * blockSize - position;
        Products(table, scales.Of(block), through, out var low, out var high);
        for (float* end = x + columns; x < end; x += Chunk, codes += Chunk / 2)
        {
            if (left == 0)
            {
                Products(table, scales.Of(++block), through, out low, out high);
                left = blockSize;
            }
            left -= Chunk;
            var v = Vector256.Load((int*)codes);
            s0 = Fma.MultiplyAdd(Value(low, high, v, v << 28), Vector256.Load(x), s0);
            s1 = Fma.MultiplyAdd(Value(low, high, v >>> 4, v << 24), Vector256.Load(x + 8), s1);
            s2 = Fma.MultiplyAdd(Value(low, high, v >>> 8, v << 20), Vector256.Load(x + 16), s2);
            s3 = Fma.MultiplyAdd(Value(low, high, v >>> 12, v << 16), Vector256.Load(x + 24), s3);
            s0 = Fma.MultiplyAdd(Value(low, high, v >>> 16, v << 12), Vector256.Load(x + 32), s0);
            s1 = Fma.MultiplyAdd(Value(low, high, v >>> 20, v << 8), Vector256.Load(x + 40), s1);
            s2 = Fma.MultiplyAdd(Value(low, high, v >>> 24, v << 4), Vector256.Load(x + 48), s2);
            s3 = Fma.MultiplyAdd(Value(low, high, v >>> 28, v), Vector256.Load(x + 56), s3);
        }
        return Vector256.Sum(s0 + s1 + (s2 + s3));
    }

    private static void Several(
        byte* packed, ScalePointers scales, long row, long columns, int blockSize, FourBitTable table, ElementKind through, float* x, int rows, float* y, long outputs)
    {
        float* values = stackalloc float[Chunk];
        float* x1 = x + columns, x2 = rows > 2 ? x1 + columns : x1, x3 = rows > 3 ? x2 + columns : x2;
        Vector256<float> s0 = default, s1 = default, s2 = default, s3 = default;
        byte* codes = packed + row * columns / 2;
        for (long k = 0; k < columns; k += Chunk, codes += Chunk / 2)
        {
            Products(table, scales.Of((row * columns + k) / blockSize), through, out var low, out var high);
            var v = Vector256.Load((int*)codes);
            Value(low, high, v, v << 28).Store(values);
            Value(low, high, v >>> 4, v << 24).Store(values + 8);
            Value(low, high, v >>> 8, v << 20).Store(values + 16);
            Value(low, high, v >>> 12, v << 16).Store(values + 24);
            Value(low, high, v >>> 16, v << 12).Store(values + 32);
            Value(low, high, v >>> 20, v << 8).Store(values + 40);
            Value(low, high, v >>> 24, v << 4).Store(values + 48);
            Value(low, high, v >>> 28, v).Store(values + 56);
            for (int i = 0; i < Chunk; i += 8)
            {
                var w = Vector256.Load(values + i);
                s0 = Fma.MultiplyAdd(w, Vector256.Load(x + k + i), s0);
                s1 = Fma.MultiplyAdd(w, Vector256.Load(x1 + k + i), s1);
                s2 = Fma.MultiplyAdd(w, Vector256.Load(x2 + k + i), s2);
                s3 = Fma.MultiplyAdd(w, Vector256.Load(x3 + k + i), s3);
            }
        }
        y[0] = Vector256.Sum(s0);
        y[outputs] = Vector256.Sum(s1);
        if (rows > 2) y[2 * outputs] = Vector256.Sum(s2);
        if (rows > 3) y[3 * outputs] = Vector256.Sum(s3);
    }

    /// <summary>Eight values: the low three bits of an index choose within a half of the table, the fourth, as a sign, the half.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector256<float> Value(Vector256<float> low, Vector256<float> high, Vector256<int> index, Vector256<int> half)
        => Avx.BlendVariable(Avx2.PermuteVar8x32(low, index), Avx2.PermuteVar8x32(high, index), half.AsSingle());

    /// <summary>code * scale for all sixteen codes, rounded.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Products(FourBitTable table, float scale, ElementKind through, out Vector256<float> low, out Vector256<float> high)
    {
        var factor = Vector256.Create(scale);
        low = Vector256.Load(table.CodesPointer) * factor;
        high = Vector256.Load(table.CodesPointer + 8) * factor;
        if (through == ElementKind.BFloat16)
        {
            low = Rounding.ThroughBFloat16<Lanes256, Vector256<float>, Vector256<int>>(low);
            high = Rounding.ThroughBFloat16<Lanes256, Vector256<float>, Vector256<int>>(high);
        }
        else if (through == ElementKind.Float16)
        {
            low = Rounding.ThroughFloat16<Lanes256, Vector256<float>, Vector256<int>>(low);
            high = Rounding.ThroughFloat16<Lanes256, Vector256<float>, Vector256<int>>(high);
        }
    }
}
