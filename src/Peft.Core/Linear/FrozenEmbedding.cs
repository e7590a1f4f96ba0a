using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>An embedding table over a given tensor, which may be memory-mapped or shared with an output head.</summary>
public sealed class FrozenEmbedding : nn.Module<Tensor, Tensor>, IEmbeddingTable
{
#pragma warning disable IDE0044 // registered by TorchSharp through reflection
    [TorchSharp.Utils.ComponentName(Name = "weight")] private Parameter _weight;
#pragma warning restore IDE0044

    /// <summary>Creates the table.</summary>
    /// <param name="weight">(V, D). A <see cref="Parameter"/> is shared; of a plain tensor ownership is taken, the argument is empty afterwards.</param>
    /// <param name="paddingIndex">A row that gets no gradient, or null.</param>
    /// <exception cref="ShapeMismatchException">The weight is no matrix.</exception>
    public FrozenEmbedding(Tensor weight, long? paddingIndex = null)
        : base(nameof(FrozenEmbedding))
    {
        ArgumentNullException.ThrowIfNull(weight);
        if (weight.dim() != 2) throw new ShapeMismatchException(nameof(FrozenEmbedding) + ".weight", [-1, -1], weight.shape);
        _weight = weight as Parameter ?? new Parameter(weight, requires_grad: false);
        PaddingIndex = paddingIndex;
        RegisterComponents();
    }

    /// <summary>The table (V, D) itself; owned by this layer unless it was given as a parameter.</summary>
    public Parameter Weight => _weight;

    /// <summary>A row that gets no gradient, or null.</summary>
    public long? PaddingIndex { get; }

    /// <summary>Looks rows up.</summary>
    /// <param name="input">Int64 indices of any shape.</param>
    /// <returns>(..., D).</returns>
    public override Tensor forward(Tensor input) => Rows(_weight, input, PaddingIndex);

    /// <summary>Rows of a table, with autograd towards the table.</summary>
    /// <param name="table">(V, D).</param>
    /// <param name="indices">Int64 of any shape.</param>
    /// <param name="paddingIndex">A row that gets no gradient, or null.</param>
    /// <returns>(..., D), in the current dispose scope.</returns>
    public static Tensor Rows(Tensor table, Tensor indices, long? paddingIndex)
    {
        ArgumentNullException.ThrowIfNull(table);
        ArgumentNullException.ThrowIfNull(indices);
        using var scope = NewDisposeScope();
        var rows = table.index_select(0, indices.flatten()).view([.. indices.shape, table.shape[1]]);
        if (paddingIndex is { } padding && table.requires_grad && is_grad_enabled())
            rows = where(indices.eq(padding).unsqueeze(-1), rows.detach(), rows);
        return rows.MoveToOuterDisposeScope();
    }
}
