using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Peft.Core;

/// <summary>Panels of <c>Wᵀ</c>, W lying in memory row after row: the right-hand side of <c>x Wᵀ</c>. Eight rows are transposed at a time.</summary>
/// <param name="weight">W.</param>
/// <param name="factor">Multiplies W.</param>
internal sealed unsafe class RowPanels(MatrixMemory weight, float factor = 1) : IPanelSource
{
    public long Depth => weight.Columns;

    public long Columns => weight.Rows;

    public void Fill(long firstColumn, int columns, long firstDepth, int depth, float* panels, int panelWidth, float* scratch)
    {
        for (int panel = 0; panel * panelWidth < columns; panel++)
        {
            float* target = panels + (long)panel * panelWidth * depth;
            int rows = Math.Min(panelWidth, columns - panel * panelWidth);
            for (int row = 0; row < panelWidth; row += 8)
            {
                int here = Math.Clamp(rows - row, 0, 8);
                if (here == 0) Zero(depth, target + row, panelWidth);
                else if (weight.IsHalf) Half((ushort*)weight.At(firstColumn + panel * panelWidth + row, firstDepth), weight.Stride, here, depth, target + row, panelWidth);
                else Single((float*)weight.At(firstColumn + panel * panelWidth + row, firstDepth), weight.Stride, here, depth, target + row, panelWidth);
            }
            for (long i = 0; factor != 1 && i < (long)panelWidth * depth; i += 8) (Vector256.Load(target + i) * factor).Store(target + i);
        }
    }

    /// <summary>Transposes up to eight rows of floats: element (row, k) goes to <c>target[k · panelWidth + row]</c>; missing rows become zero.</summary>
    internal static void Single(float* source, long stride, int rows, int depth, float* target, int panelWidth)
    {
        int k = 0;
        if (rows == 8 && Avx.IsSupported)
        {
            for (; k + 8 <= depth; k += 8)
            {
                float* s = source + k;
                Transpose(
                    Vector256.Load(s), Vector256.Load(s + stride), Vector256.Load(s + 2 * stride), Vector256.Load(s + 3 * stride),
                    Vector256.Load(s + 4 * stride), Vector256.Load(s + 5 * stride), Vector256.Load(s + 6 * stride), Vector256.Load(s + 7 * stride),
                    out var t0, out var t1, out var t2, out var t3, out var t4, out var t5, out var t6, out var t7);
                float* t = target + (long)k * panelWidth;
                t0.Store(t);
                t1.Store(t + panelWidth);
                t2.Store(t + 2 * panelWidth);
                t3.Store(t + 3 * panelWidth);
                t4.Store(t + 4 * panelWidth);
                t5.Store(t + 5 * panelWidth);
                t6.Store(t + 6 * panelWidth);
                t7.Store(t + 7 * panelWidth);
            }
        }
        for (; k < depth; k++)
            for (int r = 0; r < 8; r++) target[(long)k * panelWidth + r] = r < rows ? source[r * stride + k] : 0f;
    }

    /// <summary>The same for bfloat16, widened. Two neighbours travel as one 32-bit lane.</summary>
    private static void Half(ushort* source, long stride, int rows, int depth, float* target, int panelWidth)
    {
        int k = 0;
        if (rows == 8 && Avx2.IsSupported)
        {
            var odd = Vector256.Create(0xFFFF0000u);
            for (; k + 16 <= depth; k += 16)
            {
                ushort* s = source + k;
                Transpose(
                    Pairs(s), Pairs(s + stride), Pairs(s + 2 * stride), Pairs(s + 3 * stride),
                    Pairs(s + 4 * stride), Pairs(s + 5 * stride), Pairs(s + 6 * stride), Pairs(s + 7 * stride),
                    out var t0, out var t1, out var t2, out var t3, out var t4, out var t5, out var t6, out var t7);
                float* t = target + (long)k * panelWidth;
                Put(t, t0, odd, panelWidth);
                Put(t + 2 * panelWidth, t1, odd, panelWidth);
                Put(t + 4 * panelWidth, t2, odd, panelWidth);
                Put(t + 6 * panelWidth, t3, odd, panelWidth);
                Put(t + 8 * panelWidth, t4, odd, panelWidth);
                Put(t + 10 * panelWidth, t5, odd, panelWidth);
                Put(t + 12 * panelWidth, t6, odd, panelWidth);
                Put(t + 14 * panelWidth, t7, odd, panelWidth);
            }
        }
        for (; k < depth; k++)
            for (int r = 0; r < 8; r++) target[(long)k * panelWidth + r] = r < rows ? BFloat16Element.Get(source, r * stride + k) : 0f;
    }

    /// <summary>Writes zeros where eight columns of a panel are missing.</summary>
    internal static void Zero(int depth, float* target, int panelWidth)
    {
        for (int k = 0; k < depth; k++) new Span<float>(target + (long)k * panelWidth, 8).Clear();
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector256<float> Pairs(ushort* source) => Vector256.Load(source).AsSingle();

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Put(float* target, Vector256<float> pairs, Vector256<uint> odd, int panelWidth)
    {
        (pairs.AsUInt32() << 16).AsSingle().Store(target);
        (pairs.AsUInt32() & odd).AsSingle().Store(target + panelWidth);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Transpose(
        Vector256<float> r0, Vector256<float> r1, Vector256<float> r2, Vector256<float> r3,
        Vector256<float> r4, Vector256<float> r5, Vector256<float> r6, Vector256<float> r7,
        out Vector256<float> t0, out Vector256<float> t1, out Vector256<float> t2, out Vector256<float> t3,
        out Vector256<float> t4, out Vector256<float> t5, out Vector256<float> t6, out Vector256<float> t7)
    {
        var a0 = Avx.UnpackLow(r0, r1);
        var a1 = Avx.UnpackHigh(r0, r1);
        var a2 = Avx.UnpackLow(r2, r3);
        var a3 = Avx.UnpackHigh(r2, r3);
        var a4 = Avx.UnpackLow(r4, r5);
        var a5 = Avx.UnpackHigh(r4, r5);
        var a6 = Avx.UnpackLow(r6, r7);
        var a7 = Avx.UnpackHigh(r6, r7);
        var b0 = Avx.Shuffle(a0, a2, 0x44);
        var b1 = Avx.Shuffle(a0, a2, 0xEE);
        var b2 = Avx.Shuffle(a1, a3, 0x44);
        var b3 = Avx.Shuffle(a1, a3, 0xEE);
        var b4 = Avx.Shuffle(a4, a6, 0x44);
        var b5 = Avx.Shuffle(a4, a6, 0xEE);
        var b6 = Avx.Shuffle(a5, a7, 0x44);
        var b7 = Avx.Shuffle(a5, a7, 0xEE);
        t0 = Avx.Permute2x128(b0, b4, 0x20);
        t1 = Avx.Permute2x128(b1, b5, 0x20);
        t2 = Avx.Permute2x128(b2, b6, 0x20);
        t3 = Avx.Permute2x128(b3, b7, 0x20);
        t4 = Avx.Permute2x128(b0, b4, 0x31);
        t5 = Avx.Permute2x128(b1, b5, 0x31);
        t6 = Avx.Permute2x128(b2, b6, 0x31);
        t7 = Avx.Permute2x128(b3, b7, 0x31);
    }
}
