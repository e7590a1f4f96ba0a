using Peft.Core;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>Grows an embedding for added tokens as LLaVA does: new rows are the mean of the rows before them.</summary>
public static class EmbeddingResize
{
    /// <summary>
    /// A table with more rows: first <paramref name="given"/> where there are any (LLaVA leaves <c>&lt;im_patch&gt;</c> random), then
    /// rows that are the mean of all rows before them, the given ones included.
    /// </summary>
    /// <param name="table">The rows so far, [V, D], any floating dtype; not changed.</param>
    /// <param name="rows">Number of rows the new table has.</param>
    /// <param name="given">Rows to put first, [n, D], or null.</param>
    /// <returns>[rows, D], the table's dtype and device, without gradient; owned by the caller.</returns>
    /// <exception cref="ShapeMismatchException"><paramref name="given"/> has another width, or there are more rows than wanted.</exception>
    /// <remarks>Source: LLaVA <c>smart_tokenizer_and_embedding_resize</c> and <c>initialize_vision_tokenizer</c>.</remarks>
    public static Tensor WithMeanRows(Tensor table, long rows, Tensor? given = null)
    {
        ArgumentNullException.ThrowIfNull(table);
        long width = table.shape[1], before = table.shape[0] + (given?.shape[0] ?? 0);
        if (given is not null && given.shape[1] != width) throw new ShapeMismatchException("given rows", [given.shape[0], width], given.shape);
        if (before > rows) throw new ShapeMismatchException("grown embedding", [rows, width], [before, width]);
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var old = given is null ? table : cat([table, given.to(table.dtype)], 0);
        var mean = old.mean([0L], keepdim: true);
        return cat([old, mean.expand(rows - before, width)], 0).MoveToOuterDisposeScope();
    }
}
