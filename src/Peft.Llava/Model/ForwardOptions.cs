namespace Peft.Llava;

/// <summary>What a forward pass computes and keeps.</summary>
public sealed record ForwardOptions
{
    /// <summary>Logits at every token (the default), at the last one of each sample, or none.</summary>
    public LogitRows Logits { get; init; } = LogitRows.All;

    /// <summary>The mean loss, if the batch has labels.</summary>
    public bool Loss { get; init; }

    /// <summary>Intermediate results to keep.</summary>
    public Captures Capture { get; init; }

    /// <summary>
    /// LLaVA's rule that the projector is part of the graph of every batch: a batch without an image gives it a zero gradient instead of none
    /// (by a zero image, if the batch holds no tile).
    /// </summary>
    public bool ProjectorAlwaysTakesPart { get; init; }
}

/// <summary>Where a forward pass computes logits.</summary>
public enum LogitRows
{
    /// <summary>At every token.</summary>
    All,

    /// <summary>At the last token of each sample.</summary>
    Last,

    /// <summary>Nowhere.</summary>
    None,
}

/// <summary>Intermediate results of a forward pass.</summary>
[Flags]
public enum Captures
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary><see cref="LlavaOutput.VisionFeatures"/> and <see cref="LlavaOutput.ProjectedFeatures"/>.</summary>
    Vision = 1,

    /// <summary><see cref="LlavaOutput.Embeddings"/> and <see cref="LlavaOutput.ImageFeatures"/>.</summary>
    Embeddings = 2,

    /// <summary><see cref="LlavaOutput.LayerOutputs"/>.</summary>
    Layers = 4,

    /// <summary><see cref="LlavaOutput.FinalNorm"/>.</summary>
    FinalNorm = 8,

    /// <summary>All of them.</summary>
    All = Vision | Embeddings | Layers | FinalNorm,
}
