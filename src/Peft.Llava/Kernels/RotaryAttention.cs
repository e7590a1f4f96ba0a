using Peft.Core;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>
/// Rotary position embedding and causal attention over the packed rows of several sequences, forward and backward.
/// </summary>
/// <remarks>
/// On the CPU the products are libtorch's matrix products over blocks of queries, which see only the keys up to the block's end; the
/// probabilities are computed again in the backward (Dao et al. 2022, "FlashAttention"), so what is kept is the rotated q and k, v, the
/// output and one float per head and row. Sums over blocks are accumulated in float32. Elsewhere <see cref="Reference"/> runs.
/// </remarks>
public static class RotaryAttention
{
    private const long QueryBlock = 128;
    private const long KeyPadding = 32;

    /// <summary>Attention of each sequence to its own past.</summary>
    /// <param name="query">(N, Hq·d): the packed rows of all sequences, not yet rotated.</param>
    /// <param name="key">(N, Hkv·d), not yet rotated; Hq is a multiple of Hkv, a key and value head serves a group of query heads.</param>
    /// <param name="value">(N, Hkv·d).</param>
    /// <param name="rope">The rotary tables of the rows, (N, 1, d/2).</param>
    /// <param name="layout">Where each sequence lies.</param>
    /// <returns>(N, Hq·d) in the dtype of <paramref name="query"/>, in the current dispose scope.</returns>
    public static Tensor Apply(Tensor query, Tensor key, Tensor value, RotaryTables rope, SequenceLayout layout)
    {
        ArgumentNullException.ThrowIfNull(query);
        ArgumentNullException.ThrowIfNull(key);
        ArgumentNullException.ThrowIfNull(value);
        ArgumentNullException.ThrowIfNull(rope);
        ArgumentNullException.ThrowIfNull(layout);
        bool ready = CpuTensor.IsKernelReady(query) && CpuTensor.IsKernelReady(key) && CpuTensor.IsKernelReady(value)
            && query.dtype == key.dtype && query.dtype == value.dtype && query.shape[0] > 0;
        if (!ready) return Reference(query, key, value, rope, layout);
        using var scope = NewDisposeScope();
        long half = rope.Cos.shape[^1];
        var cos = rope.Cos.to(ScalarType.Float32).reshape(-1, half).contiguous();
        var sin = rope.Sin.to(ScalarType.Float32).reshape(-1, half).contiguous();
        var output = is_grad_enabled() && (query.requires_grad || key.requires_grad || value.requires_grad)
            ? Function.apply(query, key, value, cos, sin, layout)
            : Forward(query, key, value, cos, sin, layout).Output;
        return output.MoveToOuterDisposeScope();
    }

    /// <summary>The same by libtorch's operators: rotation, then <see cref="CausalAttention"/>.</summary>
    /// <param name="query">(N, Hq·d).</param>
    /// <param name="key">(N, Hkv·d).</param>
    /// <param name="value">(N, Hkv·d).</param>
    /// <param name="rope">The rotary tables of the rows.</param>
    /// <param name="layout">Where each sequence lies.</param>
    /// <returns>(N, Hq·d), in the current dispose scope.</returns>
    public static Tensor Reference(Tensor query, Tensor key, Tensor value, RotaryTables rope, SequenceLayout layout)
    {
        ArgumentNullException.ThrowIfNull(query);
        ArgumentNullException.ThrowIfNull(rope);
        using var scope = NewDisposeScope();
        long rows = query.shape[0], width = rope.Cos.shape[^1] * 2;
        var q = RotaryEmbedding.Rotate(query.view(rows, -1, width), rope.Cos, rope.Sin);
        var k = RotaryEmbedding.Rotate(key.view(rows, -1, width), rope.Cos, rope.Sin);
        return CausalAttention.Apply(q, k, value.view(rows, -1, width), layout).reshape(rows, -1).MoveToOuterDisposeScope();
    }

    /// <summary>Query, key and value are (H, N, d) for libtorch's products, (N, H·d) for the packed ones.</summary>
    private readonly record struct Saved(Tensor Output, Tensor Query, Tensor Key, Tensor Value, Tensor LogSums);

    private static Saved Forward(Tensor query, Tensor key, Tensor value, Tensor cos, Tensor sin, SequenceLayout layout)
    {
        if (ProductChoice.For(query.dtype) != ProductEngine.Packed) return ByLibtorch(query, key, value, cos, sin, layout);
        var saved = PackedAttention.Forward(query, key, value, cos, sin, layout);
        return new(saved.Output, saved.Query, saved.Key, saved.Value, saved.LogSums);
    }

    private static Saved ByLibtorch(Tensor query, Tensor key, Tensor value, Tensor cos, Tensor sin, SequenceLayout layout)
        => query.dtype == ScalarType.BFloat16
            ? Forward<BFloat16Element>(query, key, value, cos, sin, layout)
            : Forward<Float32Element>(query, key, value, cos, sin, layout);

    private static Saved Forward<E>(Tensor query, Tensor key, Tensor value, Tensor cos, Tensor sin, SequenceLayout layout)
        where E : struct, IVectorElement
    {
        long rows = query.shape[0], width = cos.shape[1] * 2;
        long heads = query.shape[1] / width, keyValueHeads = key.shape[1] / width;
        var q = empty([heads, rows, width], query.dtype);
        var k = zeros([keyValueHeads, rows + KeyPadding, width], query.dtype);
        var v = zeros([keyValueHeads, rows + KeyPadding, width], query.dtype);
        CausalAttentionKernel.RotateToHeads<E>(query, cos, sin, q);
        CausalAttentionKernel.RotateToHeads<E>(key, cos, sin, k);
        v.narrow(1, 0, rows).copy_(value.view(rows, keyValueHeads, width).transpose(0, 1));
        var logSums = empty([heads, rows], ScalarType.Float32);
        var output = empty([rows, heads * width], query.dtype);
        var outputHeads = output.view(rows, heads, width).transpose(0, 1);
        using (NewDisposeScope())
        {
            // Products with a transposed right-hand side run at half the speed: the keys are transposed once instead.
            var (keysTransposed, fullValues) = (Expand(k, heads).transpose(1, 2).contiguous(), Expand(v, heads));
            foreach (var block in Blocks(layout))
            {
                using var inner = NewDisposeScope();
                var scores = q.narrow(1, block.First, block.Count).bmm(keysTransposed.narrow(2, block.Start, block.Keys));
                CausalAttentionKernel.Softmax<E>(scores, block.First - block.Start, 1 / MathF.Sqrt(width), logSums, block.First);
                outputHeads.narrow(1, block.First, block.Count).copy_(scores.bmm(fullValues.narrow(1, block.Start, block.Keys)));
            }
        }
        return new Saved(output, q, k, v, logSums);
    }

    private static (Tensor Query, Tensor Key, Tensor Value) Backward(Saved saved, Tensor grad, Tensor cos, Tensor sin, SequenceLayout layout)
        => saved.Query.dim() == 2 ? PackedAttention.Backward(new(saved.Output, saved.Query, saved.Key, saved.Value, saved.LogSums), grad, cos, sin, layout)
            : saved.Query.dtype == ScalarType.BFloat16
            ? Backward<BFloat16Element>(saved, grad, cos, sin, layout)
            : Backward<Float32Element>(saved, grad, cos, sin, layout);

    private static (Tensor Query, Tensor Key, Tensor Value) Backward<E>(Saved saved, Tensor grad, Tensor cos, Tensor sin, SequenceLayout layout)
        where E : struct, IVectorElement
    {
        var (output, q, k, v, logSums) = saved;
        long heads = q.shape[0], keyValueHeads = k.shape[0], rows = q.shape[1], width = q.shape[2];
        float scale = 1 / MathF.Sqrt(width);
        var deltas = empty([heads, rows], ScalarType.Float32);
        CausalAttentionKernel.Deltas<E>(output, grad, deltas);
        var gradHeads = grad.view(rows, heads, width).transpose(0, 1).contiguous();
        var gradQuery = empty([heads, rows, width], ScalarType.Float32);
        var gradKey = zeros([heads, rows + KeyPadding, width], ScalarType.Float32);
        var gradValue = zeros([heads, rows + KeyPadding, width], ScalarType.Float32);
        var fullKeys = Expand(k, heads);
        var (keysTransposed, valuesTransposed) = (fullKeys.transpose(1, 2).contiguous(), Expand(v, heads).transpose(1, 2).contiguous());
        foreach (var block in Blocks(layout))
        {
            using var inner = NewDisposeScope();
            var queries = q.narrow(1, block.First, block.Count);
            var keys = fullKeys.narrow(1, block.Start, block.Keys);
            var g = gradHeads.narrow(1, block.First, block.Count);
            var scores = queries.bmm(keysTransposed.narrow(2, block.Start, block.Keys));
            var gradScores = g.bmm(valuesTransposed.narrow(2, block.Start, block.Keys));
            CausalAttentionKernel.SoftmaxBackward<E>(scores, gradScores, block.First - block.Start, scale, logSums, deltas, block.First);
            TensorMath.AddTo(gradValue.narrow(1, block.Start, block.Keys), scores.transpose(1, 2).bmm(g));
            gradQuery.narrow(1, block.First, block.Count).copy_(gradScores.bmm(keys));
            TensorMath.AddTo(gradKey.narrow(1, block.Start, block.Keys), gradScores.transpose(1, 2).bmm(queries));
        }
        if (heads != keyValueHeads)
        {
            gradKey = gradKey.view(keyValueHeads, heads / keyValueHeads, rows + KeyPadding, width).sum(dim: 1L);
            gradValue = gradValue.view(keyValueHeads, heads / keyValueHeads, rows + KeyPadding, width).sum(dim: 1L);
        }
        var (ofQuery, ofKey) = (empty([rows, heads * width], q.dtype), empty([rows, keyValueHeads * width], q.dtype));
        CausalAttentionKernel.RotateFromHeads<E>(gradQuery, cos, sin, ofQuery);
        CausalAttentionKernel.RotateFromHeads<E>(gradKey, cos, sin, ofKey);
        return (ofQuery, ofKey, gradValue.narrow(1, 0, rows).transpose(0, 1).to(q.dtype).reshape(rows, keyValueHeads * width));
    }

    private static Tensor Expand(Tensor heads, long count)
        => heads.shape[0] == count ? heads.alias() : heads.repeat_interleave(count / heads.shape[0], dim: 0);

    /// <summary>A block of queries: <c>First … First + Count</c> of the batch's rows, in the sequence that starts at <c>Start</c>, with the
    /// first <c>Keys</c> keys of it (a multiple of 32; those past the block's end are masked).</summary>
    private readonly record struct Block(long Start, long First, long Count, long Keys);

    private static IEnumerable<Block> Blocks(SequenceLayout layout)
    {
        long start = 0;
        foreach (long length in layout.Lengths)
        {
            for (long first = 0; first < length; first += QueryBlock)
            {
                long count = Math.Min(QueryBlock, length - first);
                long keys = (first + count + KeyPadding - 1) / KeyPadding * KeyPadding;
                yield return new Block(start, start + first, count, keys);
            }
            start += length;
        }
    }

    private sealed class Function : autograd.SingleTensorFunction<Function>
    {
        public override string Name => nameof(RotaryAttention);

        public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
        {
            ctx.set_materialize_grads(false);
            var (cos, sin) = ((Tensor)vars[3], (Tensor)vars[4]);
            var layout = (SequenceLayout)vars[5];
            using var scope = NewDisposeScope();
            var saved = Forward((Tensor)vars[0], (Tensor)vars[1], (Tensor)vars[2], cos, sin, layout);
            ctx.save_for_backward([.. new[] { saved.Output, saved.Query, saved.Key, saved.Value, saved.LogSums }
                .Select(t => t.MoveToOuterDisposeScope()), cos, sin]);
            ctx.save_data("layout", layout);
            return saved.Output;
        }

        public override List<Tensor> backward(autograd.AutogradContext ctx, Tensor grad_output)
        {
            using var scope = NewDisposeScope();
            var s = BackwardTensors.Saved(ctx);
            var gradients = Backward(new Saved(s[0], s[1], s[2], s[3], s[4]), grad_output.contiguous(), s[5], s[6],
                (SequenceLayout)ctx.get_data("layout"));
            return BackwardTensors.Return(grad_output, gradients.Query, gradients.Key, gradients.Value, null, null, null);
        }
    }
}
