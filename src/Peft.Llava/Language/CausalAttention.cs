using Peft.Core;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>
/// Causal self-attention over packed sequences by libtorch's attention operator, in the rectangular form that the reference uses: sums then
/// run over the same lengths, so that even bfloat16 results are the reference's.
/// </summary>
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
        bool ragged = layout.Lengths.Any(n => n != layout.PaddedLength);
        var rows = ragged ? RectangleRows(layout, query.device) : null;
        var q = Rectangle(query, layout, rows, 1);
        var k = Rectangle(key, layout, rows, group);
        var v = Rectangle(value, layout, rows, group);
        using var mask = ragged ? Mask(layout, query.device) : null;
        var o = Attend(q, k, v, mask, causal: !ragged).transpose(1, 2).flatten(0, 1);
        return (rows is null ? o.contiguous() : o.index_select(0, rows)).MoveToOuterDisposeScope();
    }

    /// <summary>libtorch's attention operator; in float32 where the processor has no bfloat16 products, which the operator would need.</summary>
    /// <param name="query">(B, H, T, d).</param>
    /// <param name="key">(B, H, S, d).</param>
    /// <param name="value">(B, H, S, d).</param>
    /// <param name="mask">BOOL, or null.</param>
    /// <param name="causal">Whether a token sees those up to itself alone.</param>
    /// <returns>(B, H, T, d) in the dtype of <paramref name="query"/>, in the current dispose scope.</returns>
    internal static Tensor Attend(Tensor query, Tensor key, Tensor value, Tensor? mask, bool causal)
    {
        bool widen = query.device_type == DeviceType.CPU && query.dtype == ScalarType.BFloat16 && ProductChoice.For(query.dtype) == ProductEngine.Packed;
        if (!widen) return nn.functional.scaled_dot_product_attention(query, key, value, mask, is_casual: causal);
        using var scope = NewDisposeScope();
        return nn.functional.scaled_dot_product_attention(
            query.to(ScalarType.Float32), key.to(ScalarType.Float32), value.to(ScalarType.Float32), mask, is_casual: causal).to(query.dtype).MoveToOuterDisposeScope();
    }

    /// <summary>The row of the rectangular form that each packed row has.</summary>
    private static Tensor RectangleRows(SequenceLayout layout, Device device)
    {
        var rows = new long[layout.TokenCount];
        int row = 0;
        for (int s = 0; s < layout.Count; s++)
            for (int i = 0; i < layout.Lengths[s]; i++) rows[row++] = (long)s * layout.PaddedLength + layout.FirstColumn(s) + i;
        return tensor(rows, device: device);
    }

    /// <summary>A packed tensor as (B, heads * repeat, T, d); a head is repeated next to itself.</summary>
    private static Tensor Rectangle(Tensor packed, SequenceLayout layout, Tensor? rows, long repeat)
    {
        if (rows is not null)
            packed = zeros([(long)layout.Count * layout.PaddedLength, .. packed.shape[1..]], packed.dtype, packed.device).index_copy(0, rows, packed);
        var heads = packed.view(layout.Count, layout.PaddedLength, packed.shape[1], packed.shape[2]).transpose(1, 2);
        return repeat > 1 ? heads.repeat_interleave(repeat, 1) : heads;
    }

    /// <summary>BOOL (B, 1, T, T): what each token may look at. Padding looks at itself, since a row of nothing would be NaN.</summary>
    private static Tensor Mask(SequenceLayout layout, Device device)
    {
        using var scope = NewDisposeScope();
        var valid = layout.AttentionMask().to(device);
        long side = layout.PaddedLength;
        var causal = ones(side, side, ScalarType.Bool, device).tril().logical_and(valid.unsqueeze(1));
        return causal.logical_or(eye(side, dtype: ScalarType.Bool, device: device)).unsqueeze(1).MoveToOuterDisposeScope();
    }
}
