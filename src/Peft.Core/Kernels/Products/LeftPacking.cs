using System.Runtime.Intrinsics;

namespace Peft.Core;

/// <summary>Packs the left matrix of a product: six rows at a time, each row's floats side by side.</summary>
internal static unsafe class LeftPacking
{
    private const int TileRows = 6;

    /// <summary>Packs one tile.</summary>
    /// <param name="term">The term whose left matrix it is.</param>
    /// <param name="row">The tile's first row.</param>
    /// <param name="rows">Rows that there are, at most six; the others become zero.</param>
    /// <param name="firstDepth">The first column taken.</param>
    /// <param name="depth">How many.</param>
    /// <param name="target">Six rows of <see cref="PackedProduct.DepthBlock"/> floats.</param>
    public static void Tile(in ProductTerm term, long row, int rows, long firstDepth, int depth, float* target)
    {
        if (term.Transposed) Transposed(term, row, rows, firstDepth, depth, target);
        else
        {
            for (int r = 0; r < rows; r++)
                Row(term.Left.At(row + r, firstDepth), term.Left.Element, term.Factor, depth, target + r * PackedProduct.DepthBlock);
        }
        for (int r = rows; r < TileRows; r++) new Span<float>(target + r * PackedProduct.DepthBlock, depth).Clear();
    }

    private static void Row(void* source, MatrixElement element, float factor, int count, float* target)
    {
        if (element == MatrixElement.Int8)
        {
            Int8CodePanels.Widen((sbyte*)source, count, target);
            return;
        }
        var factors = Vector256.Create(factor);
        int i = 0;
        if (element == MatrixElement.BFloat16)
        {
            for (; i + 8 <= count; i += 8) (Half256.Load(source, i) * factors).Store(target + i);
            for (; i < count; i++) target[i] = BFloat16Element.Get(source, i) * factor;
            return;
        }
        for (; i + 8 <= count; i += 8) (Vector256.Load((float*)source + i) * factors).Store(target + i);
        for (; i < count; i++) target[i] = ((float*)source)[i] * factor;
    }

    private static void Transposed(in ProductTerm term, long row, int rows, long firstDepth, int depth, float* target)
    {
        for (int k = 0; k < depth; k++)
        {
            void* source = term.Left.At(firstDepth + k, row);
            for (int r = 0; r < rows; r++)
                target[r * PackedProduct.DepthBlock + k] = (term.Left.IsHalf ? BFloat16Element.Get(source, r) : ((float*)source)[r]) * term.Factor;
        }
    }
}
