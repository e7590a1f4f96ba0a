using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>Writes image features to their places among the token vectors.</summary>
public static class MultimodalMerge
{
    /// <summary>Gathers the feature rows a batch refers to.</summary>
    /// <param name="projected">(tiles, P, D): the projector's output.</param>
    /// <param name="newline">(D), or null; the row after the last feature row.</param>
    /// <param name="featureRows">I64 (M).</param>
    /// <returns>(M, D), in the current dispose scope.</returns>
    public static Tensor Gather(Tensor projected, Tensor? newline, Tensor featureRows)
    {
        ArgumentNullException.ThrowIfNull(projected);
        using var scope = NewDisposeScope();
        var rows = projected.flatten(0, 1);
        if (newline is not null) rows = cat([rows, newline.to(rows.dtype).unsqueeze(0)], 0);
        return rows.index_select(0, featureRows).MoveToOuterDisposeScope();
    }

    /// <summary>Puts features in the place of token vectors.</summary>
    /// <param name="embeddings">(N, D).</param>
    /// <param name="imageRows">I64 (M).</param>
    /// <param name="features">(M, D); cast to the embeddings' dtype.</param>
    /// <returns>A fresh (N, D) tensor in the current dispose scope.</returns>
    public static Tensor Apply(Tensor embeddings, Tensor imageRows, Tensor features)
    {
        ArgumentNullException.ThrowIfNull(embeddings);
        ArgumentNullException.ThrowIfNull(features);
        using var scope = NewDisposeScope();
        return embeddings.index_copy(0, imageRows, features.to(embeddings.dtype)).MoveToOuterDisposeScope();
    }
}
