namespace Peft.Core;

/// <summary>
/// With it a model says whose rows its layers are about to work on, so that adapters by sample (<see cref="PeftModel.WithAdaptersBySample"/>) find
/// them: packed rows of all samples, the samples that still generate, the tiles of pictures. Without adapters by sample it changes nothing and costs
/// nothing.
/// </summary>
/// <remarks>Handed to an <see cref="IAdapterRouted"/> model. Not for use by several threads at once.</remarks>
public sealed class AdapterRouting
{
    private readonly AdapterContext _context;

    internal AdapterRouting(AdapterContext context) => _context = context;

    /// <summary>
    /// Sends the rows of a layer's input (its first dimension) to the adapters of their samples until the scope is disposed. A layer may get a multiple
    /// of the rows (the patches of each tile). Scopes nest; an inner one replaces the outer one.
    /// </summary>
    /// <param name="batchSize">Samples of the whole batch.</param>
    /// <param name="samples">
    /// The samples that have rows, in the order of the rows: each 0 .. <paramref name="batchSize"/> - 1, repeats allowed (the beams of a search). Null
    /// for all, in order.
    /// </param>
    /// <param name="rows">How many rows each of them has, zero included; null for one.</param>
    /// <returns>The scope.</returns>
    /// <exception cref="AdapterStateException">Another number of adapter names was given than the batch has samples; nothing has changed.</exception>
    public IDisposable Route(int batchSize, IReadOnlyList<int>? samples = null, IReadOnlyList<int>? rows = null)
    {
        if (_context.Samples is not { } before) return Nothing.Instance;
        if (before.Given.Count != batchSize)
        {
            throw new AdapterStateException(
                $"{before.Given.Count} adapter names were given for a batch of {batchSize} samples; give one name for each sample, {SampleAdapters.Base} for none.");
        }
        if (rows is not null && rows.Count != (samples?.Count ?? batchSize))
            throw new ArgumentException($"{samples?.Count ?? batchSize} samples were named, but the rows of {rows.Count}; give one number for each.", nameof(rows));
        _context.Samples = before.Of(samples, rows);
        return new AdapterScope(() => _context.Samples = before);
    }

    /// <summary>Notes which adapters act at present, for a part of the model that runs again later (gradient checkpointing).</summary>
    /// <returns>The note; it holds names, no tensors.</returns>
    public AdapterMoment Now() => new(_context.Active, _context.Enabled, _context.Samples);

    /// <summary>Lets the adapters act that acted at an earlier moment, until the scope is disposed.</summary>
    /// <param name="moment">The moment, from <see cref="Now"/> of the same model.</param>
    /// <returns>The scope.</returns>
    public IDisposable Return(AdapterMoment moment)
    {
        ArgumentNullException.ThrowIfNull(moment);
        var now = Now();
        Set(moment);
        return new AdapterScope(() => Set(now));
    }

    private void Set(AdapterMoment moment)
        => (_context.Active, _context.Enabled, _context.Samples) = (moment.Active, moment.Enabled, moment.Samples);

    private sealed class Nothing : IDisposable
    {
        public static readonly Nothing Instance = new();

        public void Dispose()
        {
        }
    }
}

/// <summary>Which adapters acted at a moment, see <see cref="AdapterRouting.Now"/>.</summary>
public sealed class AdapterMoment
{
    internal AdapterMoment(IReadOnlyList<string> active, bool enabled, SampleAdapters? samples) => (Active, Enabled, Samples) = (active, enabled, samples);

    internal IReadOnlyList<string> Active { get; }

    internal bool Enabled { get; }

    internal SampleAdapters? Samples { get; }
}

/// <summary>
/// A model whose layers do not see one row per sample, or run twice, and which tells its adapters so. The model gets an
/// <see cref="Core.AdapterRouting"/> when adapters are put on it, and null when they are unloaded.
/// </summary>
public interface IAdapterRouted
{
    /// <summary>The way to the adapters on the model; null while it has none.</summary>
    AdapterRouting? AdapterRouting { get; set; }
}
