using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Peft.Core;

/// <summary>The innermost loop of the packed product: a tile of six rows of the result that stays in registers while the depth passes.</summary>
internal unsafe interface IMicroKernel
{
    /// <summary>Columns of the tile: the width of a panel.</summary>
    static abstract int Columns { get; }

    /// <summary><c>c = a b</c>, or <c>c += a b</c>.</summary>
    /// <param name="a">The rows of the left matrix, <see cref="PackedProduct.DepthBlock"/> floats apart.</param>
    /// <param name="b">A panel.</param>
    /// <param name="depth">Length of the sums.</param>
    /// <param name="c">The tile.</param>
    /// <param name="stride">Floats from one row of the tile to the next.</param>
    /// <param name="add">Whether <paramref name="c"/> is added to.</param>
    static abstract void Run(float* a, float* b, int depth, float* c, long stride, bool add);
}

/// <summary>6 x 16 in twelve 256-bit accumulators.</summary>
internal readonly unsafe struct MicroKernel256 : IMicroKernel
{
    private const int S = PackedProduct.DepthBlock;

    public static int Columns => 16;

    [SkipLocalsInit]
    public static void Run(float* a, float* b, int depth, float* c, long stride, bool add)
    {
        Vector256<float> c00 = default, c01 = default, c10 = default, c11 = default, c20 = default, c21 = default;
        Vector256<float> c30 = default, c31 = default, c40 = default, c41 = default, c50 = default, c51 = default;
        for (float* end = a + depth; a < end; a++, b += 16)
        {
            var b0 = Vector256.Load(b);
            var b1 = Vector256.Load(b + 8);
            var v = Vector256.Create(a[0]);
            c00 = Fma.MultiplyAdd(v, b0, c00);
            c01 = Fma.MultiplyAdd(v, b1, c01);
            v = Vector256.Create(a[S]);
            c10 = Fma.MultiplyAdd(v, b0, c10);
            c11 = Fma.MultiplyAdd(v, b1, c11);
            v = Vector256.Create(a[2 * S]);
            c20 = Fma.MultiplyAdd(v, b0, c20);
            c21 = Fma.MultiplyAdd(v, b1, c21);
            v = Vector256.Create(a[3 * S]);
            c30 = Fma.MultiplyAdd(v, b0, c30);
            c31 = Fma.MultiplyAdd(v, b1, c31);
            v = Vector256.Create(a[4 * S]);
            c40 = Fma.MultiplyAdd(v, b0, c40);
            c41 = Fma.MultiplyAdd(v, b1, c41);
            v = Vector256.Create(a[5 * S]);
            c50 = Fma.MultiplyAdd(v, b0, c50);
            c51 = Fma.MultiplyAdd(v, b1, c51);
        }
        Put(c, c00, c01, add);
        Put(c + stride, c10, c11, add);
        Put(c + 2 * stride, c20, c21, add);
        Put(c + 3 * stride, c30, c31, add);
        Put(c + 4 * stride, c40, c41, add);
        Put(c + 5 * stride, c50, c51, add);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Put(float* c, Vector256<float> left, Vector256<float> right, bool add)
    {
        if (add)
        {
            left += Vector256.Load(c);
            right += Vector256.Load(c + 8);
        }
        left.Store(c);
        right.Store(c + 8);
    }
}

/// <summary>6 x 32 in twelve 512-bit accumulators.</summary>
internal readonly unsafe struct MicroKernel512 : IMicroKernel
{
    private const int S = PackedProduct.DepthBlock;

    public static int Columns => 32;

    [SkipLocalsInit]
    public static void Run(float* a, float* b, int depth, float* c, long stride, bool add)
    {
        Vector512<float> c00 = default, c01 = default, c10 = default, c11 = default, c20 = default, c21 = default;
        Vector512<float> c30 = default, c31 = default, c40 = default, c41 = default, c50 = default, c51 = default;
        for (float* end = a + depth; a < end; a++, b += 32)
        {
            var b0 = Vector512.Load(b);
            var b1 = Vector512.Load(b + 16);
            var v = Vector512.Create(a[0]);
            c00 = Vector512.FusedMultiplyAdd(v, b0, c00);
            c01 = Vector512.FusedMultiplyAdd(v, b1, c01);
            v = Vector512.Create(a[S]);
            c10 = Vector512.FusedMultiplyAdd(v, b0, c10);
            c11 = Vector512.FusedMultiplyAdd(v, b1, c11);
            v = Vector512.Create(a[2 * S]);
            c20 = Vector512.FusedMultiplyAdd(v, b0, c20);
            c21 = Vector512.FusedMultiplyAdd(v, b1, c21);
            v = Vector512.Create(a[3 * S]);
            c30 = Vector512.FusedMultiplyAdd(v, b0, c30);
            c31 = Vector512.FusedMultiplyAdd(v, b1, c31);
            v = Vector512.Create(a[4 * S]);
            c40 = Vector512.FusedMultiplyAdd(v, b0, c40);
            c41 = Vector512.FusedMultiplyAdd(v, b1, c41);
            v = Vector512.Create(a[5 * S]);
            c50 = Vector512.FusedMultiplyAdd(v, b0, c50);
            c51 = Vector512.FusedMultiplyAdd(v, b1, c51);
        }
        Put(c, c00, c01, add);
        Put(c + stride, c10, c11, add);
        Put(c + 2 * stride, c20, c21, add);
        Put(c + 3 * stride, c30, c31, add);
        Put(c + 4 * stride, c40, c41, add);
        Put(c + 5 * stride, c50, c51, add);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Put(float* c, Vector512<float> left, Vector512<float> right, bool add)
    {
        if (add)
        {
            left += Vector512.Load(c);
            right += Vector512.Load(c + 16);
        }
        left.Store(c);
        right.Store(c + 16);
    }
}
