using System.Runtime.Intrinsics;

namespace Peft.Core;

/// <summary>Where a packed product goes, and what happens to each sum before it is rounded, once, to the result's dtype.</summary>
/// <param name="Memory">(rows, columns), written; with <paramref name="Transposed"/> (columns, rows).</param>
/// <param name="Bias">One float32 for each column, added; or none.</param>
/// <param name="Add">Whether the sum is added to what stands there.</param>
/// <param name="Transposed">Whether the transpose of the result is written.</param>
internal readonly unsafe record struct ResultMemory(MatrixMemory Memory, nint Bias = 0, bool Add = false, bool Transposed = false)
{
    /// <summary>Writes a block of finished sums.</summary>
    /// <param name="row">The block's first row in the result.</param>
    /// <param name="rows">Its rows.</param>
    /// <param name="column">Its first column.</param>
    /// <param name="columns">Its columns.</param>
    /// <param name="sums">The sums.</param>
    /// <param name="stride">Floats from one row of them to the next.</param>
    public void Store(long row, int rows, long column, int columns, float* sums, long stride)
    {
        if (Transposed)
        {
            StoreTransposed(row, rows, column, columns, sums, stride);
            return;
        }
        float* bias = Bias == 0 ? null : (float*)Bias + column;
        for (int r = 0; r < rows; r++, sums += stride)
        {
            void* target = Memory.At(row + r, column);
            if (Memory.IsHalf) StoreRow<Half256>(target, sums, columns, bias);
            else StoreRow<Single256>(target, sums, columns, bias);
        }
    }

    private void StoreRow<E>(void* target, float* sums, int columns, float* bias)
        where E : IElement256
    {
        int j = 0;
        for (; j + 8 <= columns; j += 8)
        {
            var value = Vector256.Load(sums + j);
            if (bias is not null) value += Vector256.Load(bias + j);
            if (Add) value += E.Load(target, j);
            E.Store(target, j, value);
        }
        for (; j < columns; j++)
        {
            float value = sums[j];
            if (bias is not null) value += bias[j];
            if (Add) value += E.Get(target, j);
            E.Set(target, j, value);
        }
    }

    private void StoreTransposed(long row, int rows, long column, int columns, float* sums, long stride)
    {
        for (int j = 0; j < columns; j++)
        {
            void* target = Memory.At(column + j, row);
            for (int r = 0; r < rows; r++)
            {
                float value = sums[r * stride + j];
                if (Memory.IsHalf) BFloat16Element.Set(target, r, Add ? value + BFloat16Element.Get(target, r) : value);
                else ((float*)target)[r] = Add ? value + ((float*)target)[r] : value;
            }
        }
    }
}
