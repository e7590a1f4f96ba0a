using static TorchSharp.torch;

namespace Peft.Llava;

public sealed partial class LlavaModel
{
    /// <summary>Runs prompts into an empty cache.</summary>
    /// <param name="prompts">The prompts.</param>
    /// <param name="cache">An empty cache for as many sequences.</param>
    /// <param name="readAtPadding">Read shorter rows at their last padded position (see <see cref="GenerationOptions.ReadFirstTokenAtPadding"/>).</param>
    /// <returns>F32 (B, V): scores of the first new token, in the current dispose scope.</returns>
    internal Tensor Prefill(LlavaBatch prompts, KeyValueCache cache, bool readAtPadding)
    {
        using var scope = NewDisposeScope();
        using var moved = OnDevice(prompts);
        var batch = moved ?? prompts;
        var output = new LlavaOutput { Layout = batch.Layout };
        // Positions count valid tokens only, whatever side padding would be on.
        var layout = new SequenceLayout(batch.Layout.Lengths);
        using var tokens = RouteTokens(layout);
        var states = Decode(Embed(batch, new ForwardOptions(), ref output), layout, layout.PositionIds(Device), layout.PaddedLength, cache);
        var last = states.index_select(0, LastRows(layout));
        if (readAtPadding && batch.Layout.PaddingSide == PaddingSide.Right) last = AtPadding(layout, cache, last);
        using var samples = RouteSamples(layout.Count);
        return Logits(_model.Norm.call(last)).MoveToOuterDisposeScope();
    }

    /// <summary>Runs one new token of each active sequence.</summary>
    /// <param name="tokens">The tokens.</param>
    /// <param name="active">The sequences they belong to.</param>
    /// <param name="cache">The cache; grows by the tokens.</param>
    /// <param name="length">Length of the longest sequence with the token, for dynamic rotary scaling.</param>
    /// <returns>F32 (active, V): scores of the next token, in the current dispose scope.</returns>
    internal Tensor Step(long[] tokens, IReadOnlyList<int> active, KeyValueCache cache, int length)
    {
        using var scope = NewDisposeScope();
        var layout = new SequenceLayout([.. active.Select(_ => 1)]);
        using var positions = tensor(active.Select(r => (long)cache.Lengths[r]).ToArray(), device: Device);
        cache.Active = active;
        using var ids = tensor(tokens, device: Device);
        using var rows = RouteSamples(cache.Lengths.Count, active);
        var states = Decode(_model.Embedding.call(ids), layout, positions, length, cache);
        return Logits(_model.Norm.call(states)).MoveToOuterDisposeScope();
    }

    /// <summary>
    /// The final states of the padded positions that the reference reads for rows shorter than the longest: a zero vector at position 1 that
    /// sees the row's valid tokens, and is seen by none.
    /// </summary>
    private Tensor AtPadding(SequenceLayout layout, KeyValueCache cache, Tensor last)
    {
        var shorter = Enumerable.Range(0, layout.Count).Where(r => layout.Lengths[r] < layout.PaddedLength).ToList();
        if (shorter.Count == 0) return last;
        using var scope = NewDisposeScope();
        var probe = new SequenceLayout([.. shorter.Select(_ => 1)]);
        (cache.Active, cache.Remember) = (shorter, false);
        using var rows = RouteSamples(layout.Count, shorter);
        var states = Decode(zeros([shorter.Count, last.shape[1]], Dtype, Device), probe, ones(shorter.Count, ScalarType.Int64, Device),
            layout.PaddedLength, cache);
        (cache.Active, cache.Remember) = (null, true);
        return last.index_copy(0, tensor(shorter.Select(r => (long)r).ToArray(), device: Device), states).MoveToOuterDisposeScope();
    }

    /// <summary>All decoder layers over a cache: (N, D) to (N, D), in the current dispose scope.</summary>
    private Tensor Decode(Tensor x, SequenceLayout layout, Tensor positions, int length, KeyValueCache cache)
    {
        using var scope = NewDisposeScope();
        cache.RequireRoom(layout);
        var context = new DecoderContext(layout, _rope.Tables(positions, length, x.dtype), cache);
        x = x.alias();
        foreach (var layer in _model.Layers)
        {
            var next = layer.Forward(x, context);
            x.Dispose();
            x = next;
        }
        cache.Advance(layout);
        return x.MoveToOuterDisposeScope();
    }
}
