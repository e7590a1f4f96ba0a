namespace Peft.Core;

/// <summary>Takes the sums of a product of integers, block by block, from several threads: no two blocks overlap.</summary>
public unsafe interface IIntegerSums
{
    /// <summary>Takes a block.</summary>
    /// <param name="row">The block's first row in the product.</param>
    /// <param name="rows">Its rows.</param>
    /// <param name="column">Its first column.</param>
    /// <param name="columns">Its columns.</param>
    /// <param name="sums">Its sums.</param>
    /// <param name="stride">Integers from one row of them to the next.</param>
    void Take(long row, int rows, long column, int columns, int* sums, long stride);
}
