using Peft.Core;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>Cross-entropy of next tokens, with logits only where a token is supervised.</summary>
public static class SupervisedLoss
{
    /// <summary>Rows whose logits exist at the same time.</summary>
    public const int ChunkRows = 512;

    /// <summary>From this many rows on, a frozen head runs in the fused kernel (see <see cref="KernelChoice"/> for why not always).</summary>
    public const int FusedRows = 128;

    /// <summary>The sum of the losses.</summary>
    /// <param name="states">(S, D): final states of the supervised rows.</param>
    /// <param name="targets">I64 (S): the id each must predict.</param>
    /// <param name="head">The output head, (…, D) to (…, V).</param>
    /// <returns>F32 scalar in the current dispose scope; 0 for no row.</returns>
    public static Tensor Sum(Tensor states, Tensor targets, nn.Module<Tensor, Tensor> head) => Sum(states, targets, head, null);

    /// <param name="states">(S, D).</param>
    /// <param name="targets">I64 (S).</param>
    /// <param name="head">The output head.</param>
    /// <param name="route">Says whose rows the head gets: first row and count to a scope. Null if nobody asks.</param>
    internal static Tensor Sum(Tensor states, Tensor targets, nn.Module<Tensor, Tensor> head, Func<long, long, IDisposable?>? route)
    {
        ArgumentNullException.ThrowIfNull(states);
        ArgumentNullException.ThrowIfNull(targets);
        ArgumentNullException.ThrowIfNull(head);
        if (targets.shape[0] >= FusedRows && head is FrozenLinear frozen && !frozen.parameters().Any(p => p.requires_grad)) return SupervisedCrossEntropy.Sum(states, frozen, targets);
        using var scope = NewDisposeScope();
        long rows = targets.shape[0];
        var total = zeros([], ScalarType.Float32, states.device);
        for (long start = 0; start < rows; start += ChunkRows)
        {
            long count = Math.Min(ChunkRows, rows - start);
            using var routed = route?.Invoke(start, count);
            var logits = head.call(states.narrow(0, start, count)).to(ScalarType.Float32);
            total = total + nn.functional.cross_entropy(logits, targets.narrow(0, start, count), reduction: nn.Reduction.Sum);
        }
        return total.MoveToOuterDisposeScope();
    }
}
