using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>What is done to the scores before a token is chosen, in this order: repetition penalty, temperature, top-k, top-p.</summary>
public static class ScoreProcessing
{
    /// <summary>Penalises ids that have been seen: positive scores are divided, negative ones multiplied, once per distinct id.</summary>
    /// <param name="scores">F32 (B, V).</param>
    /// <param name="seen">I64 (B, L): ids seen, repeats allowed.</param>
    /// <param name="penalty">Above 0; 1 changes nothing.</param>
    /// <returns>A fresh (B, V) tensor in the current dispose scope.</returns>
    public static Tensor RepetitionPenalty(Tensor scores, Tensor seen, double penalty)
    {
        ArgumentNullException.ThrowIfNull(scores);
        using var scope = NewDisposeScope();
        var picked = scores.gather(1, seen);
        var penalised = where(picked.lt(0), picked * penalty, picked / penalty);
        return scores.scatter(1, seen, penalised).MoveToOuterDisposeScope();
    }

    /// <summary>Applies temperature, top-k and top-p; removed ids get minus infinity.</summary>
    /// <param name="scores">F32 (B, V).</param>
    /// <param name="options">The settings.</param>
    /// <returns>A fresh (B, V) tensor in the current dispose scope.</returns>
    public static Tensor Warp(Tensor scores, SamplingOptions options)
    {
        ArgumentNullException.ThrowIfNull(scores);
        ArgumentNullException.ThrowIfNull(options);
        using var scope = NewDisposeScope();
        var x = scores / options.Temperature;
        if (options.TopK > 0)
        {
            // Ties of the k-th score survive.
            var (best, _) = x.topk((int)Math.Min(options.TopK, x.shape[1]), 1);
            x = x.masked_fill(x.lt(best.narrow(1, best.shape[1] - 1, 1)), double.NegativeInfinity);
        }
        if (options.TopP < 1)
        {
            var (sorted, order) = x.sort(1, descending: false);
            var removed = sorted.softmax(-1).cumsum(-1).le(1 - options.TopP);
            removed.narrow(1, x.shape[1] - 1, 1).fill_(false);      // the best id always stays
            x = x.masked_fill(removed.scatter(1, order, removed), double.NegativeInfinity);
        }
        return x.MoveToOuterDisposeScope();
    }
}
