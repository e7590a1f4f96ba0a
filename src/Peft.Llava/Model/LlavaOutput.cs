using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>
/// What a forward pass gives. Tensors live in the dispose scope of the call; those per token are packed (N, ...): <see cref="SequenceLayout.Pad"/>
/// gives the rectangular form.
/// </summary>
public sealed record LlavaOutput
{
    /// <summary>Where each sample's tokens lie.</summary>
    public required SequenceLayout Layout { get; init; }

    /// <summary>F32 (N, V), or (B, V) with <see cref="LogitRows.Last"/>; null when not asked for.</summary>
    public Tensor? Logits { get; init; }

    /// <summary>F32 scalar: the mean over supervised tokens (NaN if there is none, as in the reference); null when not asked for.</summary>
    public Tensor? Loss { get; init; }

    /// <summary>(tiles, P, Hv): the tower's selected hidden state. Null when not asked for or without images.</summary>
    public Tensor? VisionFeatures { get; init; }

    /// <summary>(tiles, P, D): the projector's output. Null when not asked for or without images.</summary>
    public Tensor? ProjectedFeatures { get; init; }

    /// <summary>(M, D): the rows written to the image places, in order. Null when not asked for or without images.</summary>
    public Tensor? ImageFeatures { get; init; }

    /// <summary>(N, D): the merged input of the first layer. Null when not asked for.</summary>
    public Tensor? Embeddings { get; init; }

    /// <summary>(N, D) per layer: its output. Empty when not asked for.</summary>
    public IReadOnlyList<Tensor> LayerOutputs { get; init; } = [];

    /// <summary>(N, D): after the last norm. Null when not asked for.</summary>
    public Tensor? FinalNorm { get; init; }
}
