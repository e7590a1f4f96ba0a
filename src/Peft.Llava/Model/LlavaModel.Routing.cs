using Peft.Core;

namespace Peft.Llava;

/// <content>Whose rows the layers work on: what adapters by sample have to know.</content>
public sealed partial class LlavaModel : IAdapterRouted
{
    private AdapterRouting? _routing;

    AdapterRouting? IAdapterRouted.AdapterRouting
    {
        get => _routing;
        set => _routing = value;
    }

    /// <summary>Begins a generation: all of its steps have the adapters that act now, and nothing is dropped, whatever mode the model is in.</summary>
    internal IDisposable? BeginGeneration() => _routing?.Begin(evaluation: true);

    // Packed tokens of all samples, or of some.
    private IDisposable? RouteTokens(SequenceLayout layout) => _routing?.Route(layout.Count, null, layout.Lengths);

    // One row of each sample.
    private IDisposable? RouteSamples(int batchSize, IReadOnlyList<int>? samples = null) => _routing?.Route(batchSize, samples);

    // Tower and projector get each tile's patches after each other. A dummy picture that no sample has counts as the first one's; its features go nowhere.
    private IDisposable? RouteTiles(LlavaBatch? batch, long tiles)
    {
        if (batch is null || _routing is null) return null;
        var counts = batch.Counts.Tiles.ToArray();
        if (batch.TileCount == 0) counts[0] = (int)tiles;
        return _routing.Route(batch.Layout.Count, null, counts);
    }

    // Supervised tokens number start to start + count.
    private IDisposable? RouteSupervised(LlavaBatch batch, long start, long count)
    {
        if (_routing is null) return null;
        var rows = new int[batch.Layout.Count];
        long first = 0;
        for (int sample = 0; sample < rows.Length; sample++)
        {
            long end = first + batch.Counts.Supervised[sample];
            rows[sample] = (int)Math.Max(0, Math.Min(end, start + count) - Math.Max(first, start));
            first = end;
        }
        return _routing.Route(rows.Length, null, rows);
    }
}
