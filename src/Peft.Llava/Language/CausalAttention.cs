using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>Causal self-attention over packed sequences.</summary>
public static class CausalAttention
{
    /// <summary>softmax(q kᵀ / sqrt(d)) v, causal, each sequence by itself; key and value heads serve a group of query heads each.</summary>
    /// <param name="query">(N, Hq, d), rotated.</param>
    /// <param name="key">(N, Hkv, d), rotated; Hq is a multiple of Hkv.</param>
    /// <param name="value">(N, Hkv, d).</param>
    /// <param name="layout">Where each sequence lies.</param>
    /// <returns>A fresh (N, Hq, d) tensor in the current dispose scope.</returns>
    public static Tensor Apply(Tensor query, Tensor key, Tensor value, SequenceLayout layout)
    {
        ArgumentNullException.ThrowIfNull(query);
        ArgumentNullException.ThrowIfNull(layout);
        using var scope = NewDisposeScope();
        long group = query.shape[1] / key.shape[1];
        var outputs = new List<Tensor>(layout.Count);
        for (int s = 0; s < layout.Count; s++)
        {
            if (layout.Lengths[s] == 0) continue;
            var q = Heads(query, layout, s, 1);
            var k = Heads(key, layout, s, group);
            var v = Heads(value, layout, s, group);
            var o = nn.functional.scaled_dot_product_attention(q, k, v, is_casual: true);
            outputs.Add(o.squeeze(0).transpose(0, 1));
        }
        return (outputs.Count == 1 ? outputs[0].contiguous() : cat(outputs, 0)).MoveToOuterDisposeScope();
    }

    /// <summary>One sequence of a packed tensor as (1, heads * repeat, L, d); a head is repeated next to itself.</summary>
    private static Tensor Heads(Tensor packed, SequenceLayout layout, int sample, long repeat)
    {
        var heads = packed.narrow(0, layout.Offsets[sample], layout.Lengths[sample]).transpose(0, 1);
        if (repeat > 1) heads = heads.repeat_interleave(repeat, 0);
        return heads.unsqueeze(0);
    }
}
