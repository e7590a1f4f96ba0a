namespace Peft.Core;

/// <summary>What all adapted layers of one model share: which adapters act, and how. Changing it switches all layers at once.</summary>
internal sealed class AdapterContext
{
    /// <summary>The active adapters, in the order in which they are added up.</summary>
    public IReadOnlyList<string> Active { get; set; } = [];

    /// <summary>Whether adapters act at all.</summary>
    public bool Enabled { get; set; } = true;

    /// <summary>The adapters that are merged into the base weights, in order.</summary>
    public List<string> Merged { get; } = [];

    /// <summary>Adapters by sample, if a batch mixes them.</summary>
    public SampleAdapters? Samples { get; set; }

    /// <summary>The dtype of the adapters' products.</summary>
    public AdapterPrecision Precision { get; set; }

    /// <summary>Where dropout masks come from.</summary>
    public IDropoutSource Dropout { get; set; } = new SeededDropout();
}
