namespace Peft.Core;

/// <summary>One product among those that are summed into a result: <c>factor · left · right</c>.</summary>
/// <param name="Left">(rows, depth) in memory; with <paramref name="Transposed"/> (depth, rows).</param>
/// <param name="Right">(depth, columns).</param>
/// <param name="Factor">Multiplies the left matrix while it is packed.</param>
/// <param name="Transposed">Whether the left matrix is the transpose of what lies in memory.</param>
internal readonly record struct ProductTerm(MatrixMemory Left, IPanelSource Right, float Factor = 1, bool Transposed = false)
{
    /// <summary>Rows of the result.</summary>
    public long Rows => Transposed ? Left.Columns : Left.Rows;

    /// <summary>Length of the sums.</summary>
    public long Depth => Right.Depth;
}
