namespace Peft.Core;

/// <summary>
/// The right-hand matrix (depth, columns) of a packed product, in whatever form it is stored: it is asked for float32 panels, piece by piece, and decodes
/// on the way. Thread-safe.
/// </summary>
public unsafe interface IPanelSource
{
    /// <summary>Rows of the matrix: the length of the sums.</summary>
    long Depth { get; }

    /// <summary>Columns of the matrix and of the product.</summary>
    long Columns { get; }

    /// <summary>
    /// Writes a piece of the matrix as panels of <paramref name="panelWidth"/> columns, one after the other; a panel holds, for each of the
    /// <paramref name="depth"/> rows, its columns side by side. Columns past <paramref name="columns"/> in the last panel are zero.
    /// </summary>
    /// <param name="firstColumn">The first column, a multiple of <paramref name="panelWidth"/>.</param>
    /// <param name="columns">How many columns.</param>
    /// <param name="firstDepth">The first row, a multiple of <see cref="PackedProduct.DepthBlock"/>.</param>
    /// <param name="depth">How many rows, at most <see cref="PackedProduct.DepthBlock"/>.</param>
    /// <param name="panels">The target, 64-byte aligned.</param>
    /// <param name="panelWidth">8, 16 or 32.</param>
    /// <param name="scratch">Room for <see cref="PackedProduct.ScratchElements"/> floats, 64-byte aligned, of the calling thread.</param>
    void Fill(long firstColumn, int columns, long firstDepth, int depth, float* panels, int panelWidth, float* scratch);
}
