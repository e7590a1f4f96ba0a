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
    /// <param name="query">(N, Hq, d), rotated.</param>
    /// <param name="key">(N, Hkv, d), rotated.</param>
    /// <param name="value">(N, Hkv, d).</param>
    /// <param name="layout">New tokens of each active sequence.</param>
    /// <returns>A fresh (N, Hq, d) tensor in the current dispose scope.</returns>
    internal Tensor Attend(int layer, Tensor query, Tensor key, Tensor value, SequenceLayout layout)
    {
        using var scope = NewDisposeScope();
        long group = query.shape[1] / key.shape[1];
        var outputs = new Tensor[layout.Count];
        for (int s = 0; s < layout.Count; s++)
        {
            int sequence = Active is null ? s : Active[s];
            int before = _lengths[sequence], fresh = layout.Lengths[s];
            var keys = _keys[layer][sequence];
            var values = _values[layer][sequence];
            if (Remember)
            {
                keys.narrow(1, before, fresh).copy_(key.narrow(0, layout.Offsets[s], fresh).transpose(0, 1));
                values.narrow(1, before, fresh).copy_(value.narrow(0, layout.Offsets[s], fresh).transpose(0, 1));
            }
            int seen = Remember ? before + fresh : before;
            outputs[s] = One(query.narrow(0, layout.Offsets[s], fresh), keys.narrow(1, 0, seen), values.narrow(1, 0, seen), before, group);
        }
        return (outputs.Length == 1 ? outputs[0] : cat(outputs, 0)).MoveToOuterDisposeScope();
    }

    /// <summary>Accepts the tokens that the layers have stored.</summary>
    /// <param name="layout">New tokens of each active sequence.</param>
    internal void Advance(SequenceLayout layout)
    {
        if (!Remember) return;
        for (int s = 0; s < layout.Count; s++) _lengths[Active is null ? s : Active[s]] += layout.Lengths[s];
    }

    /// <summary>Throws unless there is room.</summary>
    internal void RequireRoom(SequenceLayout layout)
    {
        for (int s = 0; Remember && s < layout.Count; s++)
        {
            int wanted = _lengths[Active is null ? s : Active[s]] + layout.Lengths[s];
            if (wanted > _capacity) throw new InvalidOperationException($"The cache holds {_capacity} tokens per sequence, {wanted} are wanted.");
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (var tensor in _keys) tensor.Dispose();
        foreach (var tensor in _values) tensor.Dispose();
    }

    /// <summary>(L, Hq, d) against (Hkv, seen, d): the query heads of a group are extra queries of their key head, so nothing is repeated.</summary>
    private static Tensor One(Tensor query, Tensor keys, Tensor values, int before, long group)
    {
        long length = query.shape[0], heads = keys.shape[0], d = keys.shape[2];
        if (length == 1)
        {
            var q = query.view(1, heads, group, d);
            return nn.functional.scaled_dot_product_attention(q, keys.unsqueeze(0), values.unsqueeze(0)).view(1, heads * group, d);
        }
        var k = (group > 1 ? keys.repeat_interleave(group, 0) : keys).unsqueeze(0);
        var v = (group > 1 ? values.repeat_interleave(group, 0) : values).unsqueeze(0);
        var many = query.transpose(0, 1).unsqueeze(0);
        var mask = before == 0 ? null : ones(length, keys.shape[1], ScalarType.Bool, query.device).tril(before);
        return nn.functional.scaled_dot_product_attention(many, k, v, mask, is_casual: before == 0).squeeze(0).transpose(0, 1);
    }
}
