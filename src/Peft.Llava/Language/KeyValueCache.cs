using System.Diagnostics;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>
/// Keys and values of the tokens seen so far, one row of memory per sequence and layer, allocated once for the whole generation. Sequences
/// have their own lengths: there is no padding in it.
/// </summary>
public sealed class KeyValueCache : IDisposable
{
    private readonly Tensor[] _keys;
    private readonly Tensor[] _values;
    private readonly int[] _lengths;
    private readonly int _capacity;

    /// <summary>Allocates the memory.</summary>
    /// <param name="config">The decoder.</param>
    /// <param name="sequences">B.</param>
    /// <param name="capacity">The most tokens a sequence may reach.</param>
    /// <param name="dtype">The dtype of keys and values.</param>
    /// <param name="device">Where they live.</param>
    public KeyValueCache(LanguageConfig config, int sequences, int capacity, ScalarType dtype, Device device)
    {
        ArgumentNullException.ThrowIfNull(config);
        _capacity = capacity;
        _lengths = new int[sequences];
        long[] shape = [sequences, config.KeyValueHeadCount, capacity, config.HeadDim];
        _keys = [.. Enumerable.Range(0, config.LayerCount).Select(_ => empty(shape, dtype, device).DetachFromDisposeScope())];
        _values = [.. Enumerable.Range(0, config.LayerCount).Select(_ => empty(shape, dtype, device).DetachFromDisposeScope())];
    }

    /// <summary>Tokens of each sequence that <see cref="Advance"/> has accepted.</summary>
    public IReadOnlyList<int> Lengths => _lengths;

    /// <summary>
    /// Whether new tokens are remembered. Off, they attend to what is there and leave no trace: the key and value of a padded position are
    /// hidden from everyone, itself included.
    /// </summary>
    internal bool Remember { get; set; } = true;

    /// <summary>The sequences that the rows of a call belong to; null for all, in order.</summary>
    internal IReadOnlyList<int>? Active { get; set; }

    /// <summary>Stores a layer's new keys and values and attends to everything up to each token.</summary>
    /// <param name="layer">The layer's number.</param>
    /// <param name="query">(N, Hq·d), not yet rotated.</param>
    /// <param name="key">(N, Hkv·d), not yet rotated.</param>
    /// <param name="value">(N, Hkv·d).</param>
    /// <param name="context">New tokens of each active sequence, and their rotation.</param>
    /// <returns>A fresh (N, Hq·d) tensor in the current dispose scope.</returns>
    internal Tensor Attend(int layer, Tensor query, Tensor key, Tensor value, DecoderContext context)
    {
        using var scope = NewDisposeScope();
        var layout = context.Layout;
        if (layout.PaddedLength == 1 && layout.TokenCount == layout.Count && DecodingAttention.CanRun(query, _keys[layer]))
        {
            var places = new (int, int)[layout.Count];
            for (int s = 0; s < places.Length; s++) places[s] = (SequenceOf(s), _lengths[SequenceOf(s)]);
            return DecodingAttention.Apply(query, key, value, context.Rope, _keys[layer], _values[layer], places, Remember).MoveToOuterDisposeScope();
        }
        long rows = query.shape[0], width = _keys[layer].shape[3];
        var k = RotaryEmbedding.Rotate(key.view(rows, -1, width), context.Rope.Cos, context.Rope.Sin);
        var v = value.view(rows, -1, width);
        if (Remember) Store(layer, k, v, layout);
        bool fromNothing = Remember && Enumerable.Range(0, layout.Count).All(s => _lengths[SequenceOf(s)] == 0);
        if (fromNothing && KernelChoice.Fuses(rows)) return RotaryAttention.Apply(query, key, value, context.Rope, layout).MoveToOuterDisposeScope();
        var q = RotaryEmbedding.Rotate(query.view(rows, -1, width), context.Rope.Cos, context.Rope.Sin);
        var outputs = new Tensor[layout.Count];
        for (int s = 0; s < layout.Count; s++)
        {
            int before = _lengths[SequenceOf(s)], seen = Remember ? before + layout.Lengths[s] : before;
            outputs[s] = One(q.narrow(0, layout.Offsets[s], layout.Lengths[s]), _keys[layer][SequenceOf(s)].narrow(1, 0, seen),
                _values[layer][SequenceOf(s)].narrow(1, 0, seen), before);
        }
        return cat(outputs, 0).reshape(rows, -1).MoveToOuterDisposeScope();
    }

    /// <summary>Accepts the tokens that the layers have stored.</summary>
    /// <param name="layout">New tokens of each active sequence.</param>
    internal void Advance(SequenceLayout layout)
    {
        if (!Remember) return;
        for (int s = 0; s < layout.Count; s++) _lengths[SequenceOf(s)] += layout.Lengths[s];
    }

    /// <summary>Throws unless there is room, which whoever makes a cache sees to: a generation makes it as long as its prompts and its limit.</summary>
    internal void RequireRoom(SequenceLayout layout)
    {
        for (int s = 0; Remember && s < layout.Count; s++)
        {
            int wanted = _lengths[SequenceOf(s)] + layout.Lengths[s];
            if (wanted > _capacity) throw new UnreachableException($"The cache holds {_capacity} tokens per sequence, {wanted} are wanted.");
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (var tensor in _keys) tensor.Dispose();
        foreach (var tensor in _values) tensor.Dispose();
    }

    private int SequenceOf(int active) => Active is null ? active : Active[active];

    private void Store(int layer, Tensor keys, Tensor values, SequenceLayout layout)
    {
        for (int s = 0; s < layout.Count; s++)
        {
            int sequence = SequenceOf(s), before = _lengths[sequence], fresh = layout.Lengths[s];
            _keys[layer][sequence].narrow(1, before, fresh).copy_(keys.narrow(0, layout.Offsets[s], fresh).transpose(0, 1));
            _values[layer][sequence].narrow(1, before, fresh).copy_(values.narrow(0, layout.Offsets[s], fresh).transpose(0, 1));
        }
    }

    /// <summary>(L, Hq, d) against (Hkv, seen, d): each token sees all that was there before, and the new ones up to itself.</summary>
    private Tensor One(Tensor query, Tensor keys, Tensor values, int before)
    {
        long length = query.shape[0], group = query.shape[1] / keys.shape[0];
        var k = (group > 1 ? keys.repeat_interleave(group, 0) : keys).unsqueeze(0);
        var v = (group > 1 ? values.repeat_interleave(group, 0) : values).unsqueeze(0);
        var q = query.transpose(0, 1).unsqueeze(0);
        bool causal = Remember && before == 0;
        var mask = causal || !Remember ? null : ones(length, keys.shape[1], ScalarType.Bool, query.device).tril(before);
        return CausalAttention.Attend(q, k, v, mask, causal).squeeze(0).transpose(0, 1);
    }
}
