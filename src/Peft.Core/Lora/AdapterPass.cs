namespace Peft.Core;

/// <summary>
/// Which adapters act in a pass through a model, and how: an immutable value, read once where the pass begins. It flows with the call, so that passes
/// that run at the same time may have different adapters.
/// </summary>
internal sealed record AdapterPass
{
    /// <summary>The active adapters, in the order in which they are added up.</summary>
    public IReadOnlyList<string> Active { get; init; } = [];

    /// <summary>Whether adapters act at all.</summary>
    public bool Enabled { get; init; } = true;

    /// <summary>Adapters by sample, if a batch mixes them.</summary>
    public SampleAdapters? Samples { get; init; }

    /// <summary>Whether a scope chose the adapters, rather than the model's default.</summary>
    public bool IsChosen { get; init; }

    /// <summary>Whether nothing is dropped, though the model may be in training mode.</summary>
    public bool IsEvaluation { get; init; }

    /// <summary>The dtype of the adapters' products; null, before the pass has begun, for the model's.</summary>
    public AdapterPrecision? Precision { get; init; }

    /// <summary>Where dropout masks come from; null, before the pass has begun, for the model's.</summary>
    public IDropoutSource? Dropout { get; init; }

    /// <summary>The state of the model's adapter names that the value was checked against.</summary>
    public int Names { get; init; }

    /// <summary>The adapters that the value names.</summary>
    public IEnumerable<string> Adapters => Samples is null ? Active : Samples.Given.Where(a => a != SampleAdapters.Base).Distinct();
}
