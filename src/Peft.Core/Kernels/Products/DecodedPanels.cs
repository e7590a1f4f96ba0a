using System.Runtime.Intrinsics;

namespace Peft.Core;

/// <summary>
/// Panels of an (out, in) weight that is stored in a form of its own, in either orientation: a derived class decodes pieces of rows. Thread-safe if
/// <see cref="DecodeRow"/> is.
/// </summary>
/// <param name="rows">Rows of the weight: out.</param>
/// <param name="columns">Columns of the weight: in.</param>
/// <param name="transposed">False for the right-hand side of <c>x Wᵀ</c>, true for that of <c>g W</c>.</param>
public abstract unsafe class DecodedPanels(long rows, long columns, bool transposed) : IPanelSource
{
    /// <summary>Whether it is the right-hand side of <c>g W</c>.</summary>
    public bool IsTransposed => transposed;

    /// <inheritdoc/>
    public long Depth => transposed ? rows : columns;

    /// <inheritdoc/>
    public long Columns => transposed ? columns : rows;

    /// <summary>Decodes a piece of a row of the weight to float32.</summary>
    /// <param name="row">The row.</param>
    /// <param name="first">The first column.</param>
    /// <param name="count">How many columns, at most <see cref="PackedProduct.DepthBlock"/>.</param>
    /// <param name="target">As many floats.</param>
    public abstract void DecodeRow(long row, long first, int count, float* target);

    /// <inheritdoc/>
    public void Fill(long firstColumn, int columns, long firstDepth, int depth, float* panels, int panelWidth, float* scratch)
    {
        if (transposed) FillRowByRow(firstColumn, columns, firstDepth, depth, panels, panelWidth, scratch);
        else FillTransposing(firstColumn, columns, firstDepth, depth, panels, panelWidth, scratch);
    }

    private void FillTransposing(long firstColumn, int columns, long firstDepth, int depth, float* panels, int panelWidth, float* scratch)
    {
        for (int column = 0; column < columns; column += 8)
        {
            int here = Math.Min(8, columns - column);
            for (int r = 0; r < here; r++) DecodeRow(firstColumn + column + r, firstDepth, depth, scratch + r * PackedProduct.DepthBlock);
            RowPanels.Single(scratch, PackedProduct.DepthBlock, here, depth, Place(panels, column, depth, panelWidth), panelWidth);
        }
        int padded = (columns + panelWidth - 1) / panelWidth * panelWidth;
        for (int column = (columns + 7) / 8 * 8; column < padded; column += 8) RowPanels.Zero(depth, Place(panels, column, depth, panelWidth), panelWidth);
    }

    private void FillRowByRow(long firstColumn, int columns, long firstDepth, int depth, float* panels, int panelWidth, float* scratch)
    {
        int padded = (columns + panelWidth - 1) / panelWidth * panelWidth;
        new Span<float>(scratch + columns, padded - columns).Clear();
        for (int k = 0; k < depth; k++)
        {
            DecodeRow(firstDepth + k, firstColumn, columns, scratch);
            float* target = panels + (long)k * panelWidth;
            for (int column = 0; column < padded; column += panelWidth, target += (long)panelWidth * depth)
                for (int j = 0; j < panelWidth; j += 8) Vector256.Load(scratch + column + j).Store(target + j);
        }
    }

    private static float* Place(float* panels, int column, int depth, int panelWidth)
        => panels + (long)(column / panelWidth) * panelWidth * depth + column % panelWidth;
}
