namespace Peft.Llava;

/// <summary>Bytes in use at one moment of a training step, by what they are for.</summary>
/// <param name="Name">The moment.</param>
public sealed record MemoryMoment(string Name)
{
    /// <summary>Weights of the base, quantised or not, and the buffer that quantised ones are decoded into.</summary>
    public long Base { get; init; }

    /// <summary>A and B.</summary>
    public long Adapter { get; init; }

    /// <summary>The optimizer's state.</summary>
    public long Optimizer { get; init; }

    /// <summary>Gradients of what is trained.</summary>
    public long Gradients { get; init; }

    /// <summary>What the decoder keeps for the backward pass, and its temporaries.</summary>
    public long Activations { get; init; }

    /// <summary>Pixels, the tower's work, features and what the projector keeps.</summary>
    public long Vision { get; init; }

    /// <summary>Logits and the states they are made of.</summary>
    public long Logits { get; init; }

    /// <summary>The process itself.</summary>
    public long Runtime { get; init; }

    /// <summary>The sum.</summary>
    public long Total => Base + Adapter + Optimizer + Gradients + Activations + Vision + Logits + Runtime;
}
