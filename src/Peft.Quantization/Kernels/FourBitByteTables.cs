using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Peft.Quantization;

/// <summary>
/// The inner product of a row of 4-bit codes, whose values are rounded to bfloat16, with a vector: a value's two bytes are looked up by a byte shuffle each,
/// thirty-two codes at a time, which AVX2 does faster than any look-up of 32-bit values.
/// </summary>
internal static unsafe class FourBitByteTables
{
    private const int Chunk = 64;

    /// <summary>Puts a vector into the order in which a chunk's values come out of the shuffles.</summary>
    /// <param name="x">The vector.</param>
    /// <param name="count">Its length, a multiple of 64.</param>
    /// <param name="target">As many floats.</param>
    public static void Order(float* x, long count, float* target)
    {
        for (long chunk = 0; chunk < count; chunk += Chunk)
        {
            // Even values lie in the high nibbles. A vector takes four bytes of each half of the thirty-two.
            for (int parity = 0; parity < 2; parity++)
                for (int group = 0; group < 4; group++)
                    for (int lane = 0; lane < 8; lane++)
                    {
                        int at = group * 4 + lane % 4 + (lane < 4 ? 0 : 16);
                        target[chunk + (parity * 4 + group) * 8 + lane] = x[chunk + 2 * at + parity];
                    }
        }
    }

    /// <summary>The product of a row.</summary>
    /// <param name="packed">The weight's codes.</param>
    /// <param name="scales">The block scales.</param>
    /// <param name="row">The row.</param>
    /// <param name="columns">Its length, a multiple of 64.</param>
    /// <param name="blockSize">Values per block, a multiple of 64.</param>
    /// <param name="table">The code.</param>
    /// <param name="x">The vector, as <see cref="Order"/> gave it.</param>
    public static float Dot(byte* packed, ScalePointers scales, long row, long columns, int blockSize, FourBitTable table, float* x)
    {
        Vector256<float> s0 = default, s1 = default, s2 = default, s3 = default;
        var nibble = Vector256.Create((byte)15);
        float* entries = table.CodesPointer;
        byte* codes = packed + row * columns / 2;
        long block = row * columns / blockSize, left = (block + 1) * blockSize - row * columns;
        Tables(entries, scales.Of(block), out var lows, out var highs);
        for (float* end = x + columns; x < end; x += Chunk, codes += Chunk / 2)
        {
            if (left == 0)
            {
                Tables(entries, scales.Of(++block), out lows, out highs);
                left = blockSize;
            }
            left -= Chunk;
            var v = Vector256.Load(codes);
            var even = (v.AsUInt16() >>> 4).AsByte() & nibble;
            var odd = v & nibble;
            Four(lows, highs, even, x, ref s0, ref s1, ref s2, ref s3);
            Four(lows, highs, odd, x + 32, ref s0, ref s1, ref s2, ref s3);
        }
        return Vector256.Sum(s0 + s1 + (s2 + s3));
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Four(
        Vector256<byte> lows, Vector256<byte> highs, Vector256<byte> index, float* x,
        ref Vector256<float> s0, ref Vector256<float> s1, ref Vector256<float> s2, ref Vector256<float> s3)
    {
        var low = Avx2.Shuffle(lows, index);
        var high = Avx2.Shuffle(highs, index);
        var first = Avx2.UnpackLow(low, high).AsUInt16();
        var second = Avx2.UnpackHigh(low, high).AsUInt16();
        s0 = Fma.MultiplyAdd(Avx2.UnpackLow(Vector256<ushort>.Zero, first).AsSingle(), Vector256.Load(x), s0);
        s1 = Fma.MultiplyAdd(Avx2.UnpackHigh(Vector256<ushort>.Zero, first).AsSingle(), Vector256.Load(x + 8), s1);
        s2 = Fma.MultiplyAdd(Avx2.UnpackLow(Vector256<ushort>.Zero, second).AsSingle(), Vector256.Load(x + 16), s2);
        s3 = Fma.MultiplyAdd(Avx2.UnpackHigh(Vector256<ushort>.Zero, second).AsSingle(), Vector256.Load(x + 24), s3);
    }

    /// <summary>The low and the high bytes of the sixteen values of a block, each in both halves of a vector.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Tables(float* entries, float scale, out Vector256<byte> lows, out Vector256<byte> highs)
    {
        var factor = Vector256.Create(scale);
        var first = Rounding.BFloat16Bits<Lanes256, Vector256<float>, Vector256<int>>(Vector256.Load(entries) * factor);
        var second = Rounding.BFloat16Bits<Lanes256, Vector256<float>, Vector256<int>>(Vector256.Load(entries + 8) * factor);
        var words = Avx2.Permute4x64(Avx2.PackUnsignedSaturate(first, second).AsUInt64(), 0xD8).AsUInt16();
        var bytes = Avx2.Permute4x64(Avx2.PackUnsignedSaturate((words & Vector256.Create((ushort)0xFF)).AsInt16(), (words >>> 8).AsInt16()).AsUInt64(), 0xD8).AsByte();
        lows = Avx2.Permute2x128(bytes, bytes, 0x00);
        highs = Avx2.Permute2x128(bytes, bytes, 0x11);
    }
}
