namespace Peft.Core;

/// <summary>
/// With it a model says where a pass through it begins, so that it keeps its adapters while others are made active, and whose rows its layers are about
/// to work on, so that adapters by sample (<see cref="PeftModel.WithAdaptersBySample"/>) find them: packed rows of all samples, the samples that still
/// generate, the tiles of pictures.
/// </summary>
/// <remarks>Handed to an <see cref="IAdapterRouted"/> model. Scopes belong to the call that opens them: passes on several threads do not see each other's.</remarks>
public sealed class AdapterRouting
{
    private readonly AdapterContext _context;

    internal AdapterRouting(AdapterContext context) => _context = context;

    /// <summary>
    /// Begins a pass: until the scope is disposed, the adapters that act now act in all of its layers, whatever is made active meanwhile, and none is
    /// added, removed or merged. A pass within a pass is part of it.
    /// </summary>
    /// <param name="evaluation">Whether nothing is dropped, as in evaluation mode.</param>
    /// <returns>The scope; null within a pass that is the same already.</returns>
    /// <exception cref="AdapterStateException">A scope chose adapters, and others have been merged since.</exception>
    /// <exception cref="AdapterNotFoundException">A scope chose adapters, and one has been deleted or renamed since.</exception>
    public IDisposable? Begin(bool evaluation = false) => _context.Begin(evaluation);

    /// <summary>
    /// Sends the rows of a layer's input (its first dimension) to the adapters of their samples until the scope is disposed. A layer may get a multiple
    /// of the rows (the patches of each tile). Scopes nest; an inner one replaces the outer one. Without adapters by sample it changes nothing and costs
    /// nothing.
    /// </summary>
    /// <param name="batchSize">Samples of the whole batch.</param>
    /// <param name="samples">
    /// The samples that have rows, in the order of the rows: each 0 .. <paramref name="batchSize"/> - 1, repeats allowed (the beams of a search). Null
    /// for all, in order.
    /// </param>
    /// <param name="rows">How many rows each of them has, zero included; null for one.</param>
    /// <returns>The scope; null without adapters by sample.</returns>
    /// <exception cref="AdapterStateException">Another number of adapter names was given than the batch has samples; nothing has changed.</exception>
    public IDisposable? Route(int batchSize, IReadOnlyList<int>? samples = null, IReadOnlyList<int>? rows = null)
    {
        var pass = _context.Current;
        if (pass.Samples is not { } given) return null;
        if (given.Given.Count != batchSize)
        {
            throw new AdapterStateException(
                $"{given.Given.Count} adapter names were given for a batch of {batchSize} samples; give one name for each sample, {SampleAdapters.Base} for none.");
        }
        if (rows is not null && rows.Count != (samples?.Count ?? batchSize))
            throw new ArgumentException($"{samples?.Count ?? batchSize} samples were named, but the rows of {rows.Count}; give one number for each.", nameof(rows));
        return _context.Enter(pass with { Samples = given.Of(samples, rows) });
    }

    /// <summary>Gives what acts in the present call, for a part of the model that runs again later (gradient checkpointing).</summary>
    /// <returns>The value; it holds names, no tensors.</returns>
    public AdapterMoment Now() => new(_context.Pinned());

    /// <summary>Lets the adapters act that acted in an earlier call, until the scope is disposed; nothing is looked up again.</summary>
    /// <param name="moment">The value, from <see cref="Now"/> of the same model.</param>
    /// <returns>The scope.</returns>
    public IDisposable Return(AdapterMoment moment)
    {
        ArgumentNullException.ThrowIfNull(moment);
        return _context.Enter(moment.Pass with { IsChosen = false });
    }
}

/// <summary>
/// A model that tells the adapters on it where a pass begins, and whose rows its layers work on where that is not one row per sample. The model gets an
/// <see cref="Core.AdapterRouting"/> when adapters are put on it, and null when they are unloaded.
/// </summary>
public interface IAdapterRouted
{
    /// <summary>The way to the adapters on the model; null while it has none.</summary>
    AdapterRouting? AdapterRouting { get; set; }
}
