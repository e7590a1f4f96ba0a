using Peft.Core;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>
/// Summed cross-entropy of a frozen head's logits, a few rows at a time: the logits of all rows never exist together, and the gradient of
/// the states is computed while the logits are at hand.
/// </summary>
/// <remarks>
/// Exact: the logits are those of the head in its own dtype, widened to float32 for the softmax as in transformers' loss, and their
/// gradient is rounded to the head's dtype before the product with its weight, as autograd's cast does.
/// </remarks>
public static class SupervisedCrossEntropy
{
    /// <summary>The sum over rows of <c>-log softmax(head(states))[target]</c>.</summary>
    /// <param name="states">(S, D): hidden states at supervised positions only.</param>
    /// <param name="head">The frozen output head, D to V.</param>
    /// <param name="targets">(S) int64 on the states' device, each in [0, V).</param>
    /// <returns>A float32 scalar with a gradient towards <paramref name="states"/>, in the current dispose scope.</returns>
    /// <exception cref="ArgumentOutOfRangeException">A target is outside the vocabulary.</exception>
    public static Tensor Sum(Tensor states, FrozenLinear head, Tensor targets)
    {
        ArgumentNullException.ThrowIfNull(states);
        ArgumentNullException.ThrowIfNull(head);
        ArgumentNullException.ThrowIfNull(targets);
        CheckTargets(targets, head.OutFeatures);
        return is_grad_enabled() && states.requires_grad
            ? Function.apply(states, head, targets)
            : Compute(states, head, targets, gradient: null);
    }

    private static void CheckTargets(Tensor targets, long vocabulary)
    {
        if (targets.numel() == 0) return;
        using var scope = NewDisposeScope();
        long least = targets.min().ToInt64(), greatest = targets.max().ToInt64();
        if (least < 0 || greatest >= vocabulary)
            throw new ArgumentOutOfRangeException(nameof(targets),
                $"Labels run from {least} to {greatest}, but the head has {vocabulary} outputs. Check that the tokenizer belongs to this model, "
                + "and that embeddings were resized after tokens were added.");
    }

    /// <summary>The loss; and, where wanted, the gradient of the states into <paramref name="gradient"/>.</summary>
    private static Tensor Compute(Tensor states, FrozenLinear head, Tensor targets, Tensor? gradient)
    {
        using var scope = NewDisposeScope();
        var total = zeros([], ScalarType.Float64, states.device);
        for (long start = 0; start < states.shape[0]; start += SupervisedLoss.ChunkRows)
        {
            using var inner = NewDisposeScope();
            long count = Math.Min(SupervisedLoss.ChunkRows, states.shape[0] - start);
            var logits = head.Apply(states.narrow(0, start, count));
            var wanted = targets.narrow(0, start, count);
            Tensor gradLogits;
            if (CpuTensor.IsKernelReady(logits))
            {
                total.add_(logits.dtype == ScalarType.BFloat16
                    ? LossAndGradient<BFloat16Element>(logits, wanted)
                    : LossAndGradient<Float32Element>(logits, wanted));
                gradLogits = logits;
            }
            else
            {
                var logProbabilities = nn.functional.log_softmax(logits.to(ScalarType.Float32), -1);
                total.sub_(logProbabilities.gather(1, wanted.unsqueeze(1)).sum().to(ScalarType.Float64));
                gradLogits = logProbabilities.exp_().scatter_add_(1, wanted.unsqueeze(1), full([count, 1], -1f, device: logits.device)).to(logits.dtype);
            }
            if (gradient is not null)
                gradient.narrow(0, start, count).copy_(head.ApplyTransposed(gradLogits));
        }
        return total.to(ScalarType.Float32).MoveToOuterDisposeScope();
    }

    /// <summary>Sums the rows' losses and turns the logits into their gradient in place.</summary>
    private static unsafe double LossAndGradient<E>(Tensor logits, Tensor targets)
        where E : struct, IVectorElement
    {
        long rows = logits.shape[0], width = logits.shape[1];
        void* p = CpuTensor.Pointer(logits);
        using var contiguous = targets.contiguous();
        long* target = (long*)CpuTensor.Pointer(contiguous);
        var losses = new double[rows];
        VectorLoops.Run(new Loop<E>(p, target, losses, width), rows, 1);
        return losses.Sum();
    }

    private readonly unsafe struct Loop<E>(void* p, long* target, double[] losses, long width) : IVectorLoop
        where E : struct, IVectorElement
    {
        public void Run<V>(long begin, long end)
            where V : struct, IFloats<V>
        {
            for (long row = begin; row < end; row++)
            {
                long start = row * width, i = 0;
                var maxima = V.All(float.NegativeInfinity);
                for (; i + 16 <= width; i += 16) maxima = V.Max(maxima, E.Load<V>(p, start + i));
                float maximum = V.Largest(maxima);
                for (; i < width; i++) maximum = MathF.Max(maximum, E.Get(p, start + i));
                float wanted = E.Get(p, start + target[row]);

                var sums = default(V);
                for (i = 0; i + 16 <= width; i += 16) sums += VectorMath.Exp(E.Load<V>(p, start + i) - V.All(maximum));
                double sum = V.Sum(sums);
                for (; i < width; i++) sum += Math.Exp(E.Get(p, start + i) - maximum);
                losses[row] = Math.Log(sum) + maximum - wanted;

                float inverse = (float)(1 / sum);
                for (i = 0; i + 16 <= width; i += 16)
                    E.Store(p, start + i, VectorMath.Exp(E.Load<V>(p, start + i) - V.All(maximum)) * inverse);
                for (; i < width; i++) E.Set(p, start + i, MathF.Exp(E.Get(p, start + i) - maximum) * inverse);
                E.Set(p, start + target[row], MathF.Exp(wanted - maximum) * inverse - 1);
            }
        }
    }

    private sealed class Function : autograd.SingleTensorFunction<Function>
    {
        public override string Name => nameof(SupervisedCrossEntropy);

        public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
        {
            var states = (Tensor)vars[0];
            ctx.set_materialize_grads(false);
            var gradient = empty_like(states);
            ctx.save_for_backward([gradient]);
            var head = (FrozenLinear)vars[1];
            var sum = Compute(states, head, (Tensor)vars[2], gradient);
            // Not used again in this step.
            MappedPages.ReleaseUnwritten(head.parameters().Concat(head.buffers()));
            return sum;
        }

        public override List<Tensor> backward(autograd.AutogradContext ctx, Tensor grad_output)
        {
            using var gradient = BackwardTensors.Saved(ctx)[0];
            // In float16 a scaled loss's own gradient may lie above the largest number where its product with the states' does not.
            var wide = gradient.dtype == ScalarType.Float16 ? (gradient.to(ScalarType.Float32) * grad_output).to(gradient.dtype) : gradient * grad_output.to(gradient.dtype);
            return BackwardTensors.Return(grad_output, wide, null, null);
        }
    }
}
