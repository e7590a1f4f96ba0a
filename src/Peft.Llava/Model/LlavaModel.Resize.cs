using Peft.Core;
using static TorchSharp.torch;

namespace Peft.Llava;

public sealed partial class LlavaModel
{
    /// <summary>
    /// Gives embedding and head more rows, for added tokens: new rows are the mean of the rows before (LLaVA's
    /// <c>smart_tokenizer_and_embedding_resize</c>). Fewer rows drop the last ones. To be done before adapters are put on.
    /// </summary>
    /// <param name="rows">Number of rows wanted: the tokenizer's count.</param>
    public void ResizeTokenEmbeddings(int rows)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(rows);
        if (rows == Config.Language.VocabularySize) return;
        using var noGrad = no_grad();
        bool embeddingTrained = EmbeddingWeight.requires_grad;
        _model.ReplaceTable(new FrozenEmbedding(Resized(EmbeddingWeight, rows)));
        EmbeddingWeight.requires_grad_(embeddingTrained);
        if (_head is FrozenLinear head)
        {
            using var weight = head.MaterializeWeight(head.WeightDtype);
            ModuleTree.Replace(this, "lm_head", new DenseFrozenLinear(Resized(weight, rows), name: "lm_head")).Dispose();
        }
        Config = HasForeignNames ? Config.WithText("vocab_size", rows) : Config.With("vocab_size", rows);
    }

    private static Tensor Resized(Tensor table, long rows)
        => (rows < table.shape[0] ? table.narrow(0, 0, rows).clone() : EmbeddingResize.WithMeanRows(table, rows)).DetachFromDisposeScope();
}
