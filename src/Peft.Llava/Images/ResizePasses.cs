using System.Buffers;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Peft.Llava;

/// <summary>
/// The two integer passes of a resize over RGB bytes. Each value is <c>(2^21 + sum weight * pixel) >> 22</c>, clipped to 0..255, in
/// 32-bit arithmetic.
/// </summary>
/// <remarks>
/// The vector code splits a 23-bit weight into <c>high * 2^15 + low</c>, so that one 16-bit multiply-add takes two taps at once; sums
/// are taken modulo 2^32, which changes nothing, as the final sum fits.
/// </remarks>
internal static class ResizePasses
{
    private const int Half = 1 << (FilterWeights.FractionBits - 1);
    private const int LowBits = 15;

    /// <summary>Bytes that the vector code may read beyond a row.</summary>
    private const int Slack = 32;

    /// <summary>Filters along rows, which may be padded with a colour on both sides.</summary>
    /// <param name="source">Rows of RGB pixels.</param>
    /// <param name="sourceStride">Bytes from row to row.</param>
    /// <param name="sourceWidth">Pixels per source row; 0 for a row of nothing but the colour.</param>
    /// <param name="rows">Rows to filter.</param>
    /// <param name="weights">One entry per output pixel, over a row of <paramref name="paddedWidth"/> pixels.</param>
    /// <param name="destination">Receives the rows.</param>
    /// <param name="stride">Bytes from row to row there.</param>
    /// <param name="left">Pixels of padding before a source row.</param>
    /// <param name="paddedWidth">Pixels of a row with its padding.</param>
    /// <param name="colour">The padding's colour, if there is padding.</param>
    public static void Horizontal(
        ReadOnlySpan<byte> source, int sourceStride, int sourceWidth, int rows, FilterWeights weights, Span<byte> destination, int stride,
        int left, int paddedWidth, ReadOnlySpan<byte> colour)
    {
        int outputs = weights.First.Length;
        int[] pairs = Avx2.IsSupported ? SplitWeights(weights) : [];
        int row = 3 * paddedWidth, padded = row + 3 * weights.Stride + Slack, outPadded = 3 * outputs + Slack;
        byte[] rented = ArrayPool<byte>.Shared.Rent(2 * (padded + outPadded));
        try
        {
            var rowA = rented.AsSpan(0, padded);
            var rowB = rented.AsSpan(padded, padded);
            var outA = rented.AsSpan(2 * padded, outPadded);
            var outB = rented.AsSpan(2 * padded + outPadded, outPadded);
            if (sourceWidth < paddedWidth)
            {
                for (int x = 0; x < paddedWidth; x++) colour[..3].CopyTo(rowA[(3 * x)..]);
                rowA[..row].CopyTo(rowB);
            }
            for (int y = 0; y < rows; y += 2)
            {
                int second = Math.Min(y + 1, rows - 1);
                source.Slice(sourceStride * y, 3 * sourceWidth).CopyTo(rowA[(3 * left)..]);
                source.Slice(sourceStride * second, 3 * sourceWidth).CopyTo(rowB[(3 * left)..]);
                if (Avx2.IsSupported)
                {
                    HorizontalTwoRows(rowA, rowB, weights, pairs, outA, outB);
                }
                else
                {
                    HorizontalRow(rowA, weights, outA);
                    HorizontalRow(rowB, weights, outB);
                }
                outA[..(3 * outputs)].CopyTo(destination[(stride * y)..]);
                outB[..(3 * outputs)].CopyTo(destination[(stride * second)..]);
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(rented);
        }
    }

    /// <summary>Filters along columns.</summary>
    /// <param name="source">Rows of bytes; row 0 is the picture's row <paramref name="firstRow"/>.</param>
    /// <param name="sourceStride">Bytes from row to row.</param>
    /// <param name="length">Bytes of a row to filter.</param>
    /// <param name="weights">One entry per output row.</param>
    /// <param name="firstRow">See <paramref name="source"/>.</param>
    /// <param name="destination">Receives the rows.</param>
    /// <param name="stride">Bytes from row to row there.</param>
    public static void Vertical(
        ReadOnlySpan<byte> source, int sourceStride, int length, FilterWeights weights, int firstRow, Span<byte> destination, int stride)
    {
        int outputs = weights.First.Length;
        bool vector = Avx2.IsSupported && length >= Vector256<byte>.Count;
        int[] pairs = vector ? SplitWeights(weights) : [];
        for (int y = 0; y < outputs; y++)
        {
            var rows = source[(sourceStride * (weights.First[y] - firstRow))..];
            var to = destination.Slice(stride * y, length);
            if (!vector)
            {
                VerticalRow(rows, sourceStride, weights.Values.AsSpan(y * weights.Stride, weights.Taps[y]), to);
                continue;
            }
            var rowPairs = pairs.AsSpan(y * weights.Stride, weights.Stride);
            int last = length - Vector256<byte>.Count;
            for (int x = 0; x < last; x += Vector256<byte>.Count) VerticalBlock(rows, sourceStride, x, weights.Taps[y], rowPairs, to);
            VerticalBlock(rows, sourceStride, last, weights.Taps[y], rowPairs, to);      // overlaps the block before it
        }
    }

    /// <summary>
    /// Per output and two taps: the low halves of both weights as one int (16 bits each), then the high halves.
    /// Laid out [outputs][stride / 4][low 01, low 23, high 01, high 23].
    /// </summary>
    private static int[] SplitWeights(FilterWeights weights)
    {
        int[] pairs = new int[weights.Values.Length];
        for (int i = 0; i < pairs.Length; i += FilterWeights.TapStep)
        {
            var k = weights.Values.AsSpan(i, FilterWeights.TapStep);
            pairs[i] = Pack(Low(k[0]), Low(k[1]));
            pairs[i + 1] = Pack(Low(k[2]), Low(k[3]));
            pairs[i + 2] = Pack(k[0] >> LowBits, k[1] >> LowBits);
            pairs[i + 3] = Pack(k[2] >> LowBits, k[3] >> LowBits);
        }
        return pairs;

        static int Low(int weight) => weight & ((1 << LowBits) - 1);
        static int Pack(int first, int second) => (first & 0xffff) | (second << 16);
    }

    private static void HorizontalTwoRows(
        ReadOnlySpan<byte> rowA, ReadOnlySpan<byte> rowB, FilterWeights weights, int[] pairs, Span<byte> outA, Span<byte> outB)
    {
        // Bytes of four RGB pixels as 16-bit pairs per channel: pixels 0 and 1 in the lower half, 2 and 3 in the upper.
        const byte z = 0x80;
        var spread = Vector256.Create(
            0, z, 3, z, 1, z, 4, z, 2, z, 5, z, z, z, z, z,
            6, z, 9, z, 7, z, 10, z, 8, z, 11, z, z, z, z, z);
        ref byte a = ref MemoryMarshal.GetReference(rowA);
        ref byte b = ref MemoryMarshal.GetReference(rowB);
        ref byte toA = ref MemoryMarshal.GetReference(outA);
        ref byte toB = ref MemoryMarshal.GetReference(outB);
        ref int k = ref MemoryMarshal.GetArrayDataReference(pairs);
        int steps = weights.Stride / FilterWeights.TapStep;
        int[] first = weights.First;
        var half = Vector128.Create(Half);
        for (int x = 0; x < first.Length; x++)
        {
            var lowA = Vector256<int>.Zero;
            var highA = Vector256<int>.Zero;
            var lowB = Vector256<int>.Zero;
            var highB = Vector256<int>.Zero;
            nuint at = (nuint)(3 * first[x]);
            ref int weight = ref Unsafe.Add(ref k, x * weights.Stride);
            for (int s = 0; s < steps; s++, at += 12)
            {
                ref int four = ref Unsafe.Add(ref weight, FilterWeights.TapStep * s);
                var low = Vector256.Create(Vector128.Create(four), Vector128.Create(Unsafe.Add(ref four, 1))).AsInt16();
                var high = Vector256.Create(Vector128.Create(Unsafe.Add(ref four, 2)), Vector128.Create(Unsafe.Add(ref four, 3))).AsInt16();
                var fromA = Vector128.LoadUnsafe(ref a, at);
                var fromB = Vector128.LoadUnsafe(ref b, at);
                var pixelsA = Avx2.Shuffle(Vector256.Create(fromA, fromA), spread).AsInt16();
                var pixelsB = Avx2.Shuffle(Vector256.Create(fromB, fromB), spread).AsInt16();
                lowA += Avx2.MultiplyAddAdjacent(pixelsA, low);
                highA += Avx2.MultiplyAddAdjacent(pixelsA, high);
                lowB += Avx2.MultiplyAddAdjacent(pixelsB, low);
                highB += Avx2.MultiplyAddAdjacent(pixelsB, high);
            }
            var sumA = Fold(lowA, highA, half);
            var sumB = Fold(lowB, highB, half);
            var packed = Sse2.PackUnsignedSaturate(Sse2.PackSignedSaturate(sumA, sumB), Vector128<short>.Zero).AsUInt32();
            // Four bytes per pixel of three: the fourth is overwritten by the next pixel, or lies in the slack.
            Unsafe.WriteUnaligned(ref Unsafe.Add(ref toA, 3 * x), packed.GetElement(0));
            Unsafe.WriteUnaligned(ref Unsafe.Add(ref toB, 3 * x), packed.GetElement(1));
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector128<int> Fold(Vector256<int> low, Vector256<int> high, Vector128<int> half)
    {
        var sum = low + Vector256.ShiftLeft(high, LowBits);
        return Vector128.ShiftRightArithmetic(sum.GetLower() + sum.GetUpper() + half, FilterWeights.FractionBits);
    }

    /// <summary>32 columns of one output row.</summary>
    private static void VerticalBlock(ReadOnlySpan<byte> rows, int stride, int x, int taps, ReadOnlySpan<int> pairs, Span<byte> to)
    {
        ref byte from = ref MemoryMarshal.GetReference(rows);
        var low0 = Vector256<int>.Zero;
        var low1 = Vector256<int>.Zero;
        var low2 = Vector256<int>.Zero;
        var low3 = Vector256<int>.Zero;
        var high0 = Vector256<int>.Zero;
        var high1 = Vector256<int>.Zero;
        var high2 = Vector256<int>.Zero;
        var high3 = Vector256<int>.Zero;
        nuint at = (nuint)x;
        ref int k = ref MemoryMarshal.GetReference(pairs);
        for (int t = 0; t < taps; t += 2, at += (nuint)(2 * stride))
        {
            int pair = (t & ~3) + ((t >> 1) & 1);
            var low = Vector256.Create(Unsafe.Add(ref k, pair)).AsInt16();
            var high = Vector256.Create(Unsafe.Add(ref k, pair + 2)).AsInt16();
            var first = Vector256.LoadUnsafe(ref from, at);
            var second = t + 1 < taps ? Vector256.LoadUnsafe(ref from, at + (nuint)stride) : Vector256<byte>.Zero;
            // Unpacking works within 128-bit halves, and so does the packing below: the order comes out right.
            var left = Avx2.UnpackLow(first, second);
            var right = Avx2.UnpackHigh(first, second);
            var p0 = Avx2.UnpackLow(left, Vector256<byte>.Zero).AsInt16();
            var p1 = Avx2.UnpackHigh(left, Vector256<byte>.Zero).AsInt16();
            var p2 = Avx2.UnpackLow(right, Vector256<byte>.Zero).AsInt16();
            var p3 = Avx2.UnpackHigh(right, Vector256<byte>.Zero).AsInt16();
            low0 += Avx2.MultiplyAddAdjacent(p0, low);
            low1 += Avx2.MultiplyAddAdjacent(p1, low);
            low2 += Avx2.MultiplyAddAdjacent(p2, low);
            low3 += Avx2.MultiplyAddAdjacent(p3, low);
            high0 += Avx2.MultiplyAddAdjacent(p0, high);
            high1 += Avx2.MultiplyAddAdjacent(p1, high);
            high2 += Avx2.MultiplyAddAdjacent(p2, high);
            high3 += Avx2.MultiplyAddAdjacent(p3, high);
        }
        var words0 = Avx2.PackSignedSaturate(Scale(low0, high0), Scale(low1, high1));
        var words1 = Avx2.PackSignedSaturate(Scale(low2, high2), Scale(low3, high3));
        Avx2.PackUnsignedSaturate(words0, words1).StoreUnsafe(ref MemoryMarshal.GetReference(to), (nuint)x);

    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector256<int> Scale(Vector256<int> low, Vector256<int> high)
        => Vector256.ShiftRightArithmetic(low + Vector256.ShiftLeft(high, LowBits) + Vector256.Create(Half), FilterWeights.FractionBits);

    private static void HorizontalRow(ReadOnlySpan<byte> source, FilterWeights weights, Span<byte> to)
    {
        for (int x = 0; x < weights.First.Length; x++)
        {
            var k = weights.Values.AsSpan(x * weights.Stride, weights.Taps[x]);
            int red = Half, green = Half, blue = Half, at = 3 * weights.First[x];
            foreach (int weight in k)
            {
                red += weight * source[at];
                green += weight * source[at + 1];
                blue += weight * source[at + 2];
                at += 3;
            }
            to[3 * x] = Clip(red);
            to[3 * x + 1] = Clip(green);
            to[3 * x + 2] = Clip(blue);
        }
    }

    private static void VerticalRow(ReadOnlySpan<byte> rows, int stride, ReadOnlySpan<int> weights, Span<byte> to)
    {
        for (int x = 0; x < to.Length; x++)
        {
            int sum = Half;
            for (int t = 0; t < weights.Length; t++) sum += weights[t] * rows[stride * t + x];
            to[x] = Clip(sum);
        }
    }

    private static byte Clip(int sum) => (byte)Math.Clamp(sum >> FilterWeights.FractionBits, 0, 255);
}
