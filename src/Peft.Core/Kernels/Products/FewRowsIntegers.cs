using System.Buffers;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary><c>a bᵀ</c> in integers for a handful of rows of a: b's bytes are read once, and multiplied as 16-bit integers.</summary>
internal static unsafe class FewRowsIntegers
{
    private const int Columns = 32;

    /// <summary>Computes on libtorch's threads.</summary>
    /// <param name="a">(rows, depth) int8, at most <see cref="FewRowsProduct.MostRows"/> rows.</param>
    /// <param name="b">(columns, depth) int8.</param>
    /// <param name="sums">Takes the sums.</param>
    public static void Run(Tensor a, Tensor b, IIntegerSums sums)
    {
        var (left, right) = (MatrixMemory.Of(a), MatrixMemory.Of(b));
        int rows = (int)left.Rows, depth = (int)left.Columns;
        short[] wide = ArrayPool<short>.Shared.Rent(rows * depth);
        try
        {
            fixed (short* pinned = wide)
            {
                short* x = pinned;
                for (long i = 0; i < (long)rows * depth; i++) x[i] = ((sbyte*)left.Data)[i];
                CpuParallel.For(right.Rows, Columns, (begin, end) =>
                {
                    int* block = stackalloc int[FewRowsProduct.MostRows * Columns];
                    for (long column = begin; column < end; column += Columns)
                    {
                        int here = (int)Math.Min(Columns, end - column);
                        for (int j = 0; j < here; j++)
                            for (int r = 0; r < rows; r++) block[r * Columns + j] = Dot(x + (long)r * depth, (sbyte*)right.At(column + j, 0), depth);
                        sums.Take(0, rows, column, here, block, Columns);
                    }
                });
            }
        }
        finally
        {
            ArrayPool<short>.Shared.Return(wide);
        }
    }

    private static int Dot(short* x, sbyte* w, int count)
    {
        Vector256<int> s0 = default, s1 = default;
        int i = 0;
        for (; i + 32 <= count; i += 32)
        {
            s0 += Avx2.MultiplyAddAdjacent(Avx2.ConvertToVector256Int16(w + i), Vector256.Load(x + i));
            s1 += Avx2.MultiplyAddAdjacent(Avx2.ConvertToVector256Int16(w + i + 16), Vector256.Load(x + i + 16));
        }
        int sum = Vector256.Sum(s0 + s1);
        for (; i < count; i++) sum += w[i] * x[i];
        return sum;
    }
}
