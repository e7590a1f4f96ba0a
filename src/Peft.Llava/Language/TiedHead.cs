using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>The output head of a checkpoint with tied embeddings: the embedding, used a second time. It has no parameter of its own.</summary>
public sealed class TiedHead : nn.Module<Tensor, Tensor>
{
    // Held in a closure: a field of a module type would be registered and give the weight a second name.
    private readonly Func<Tensor> _weight;

    /// <summary>Creates the head.</summary>
    /// <param name="embedding">The embedding; stays its owner's.</param>
    public TiedHead(TokenEmbedding embedding)
        : base(nameof(TiedHead))
    {
        ArgumentNullException.ThrowIfNull(embedding);
        _weight = () => embedding.Weight;
        RegisterComponents();
    }

    /// <summary>Scores every token.</summary>
    /// <param name="input">(..., D).</param>
    /// <returns>(..., V), in the current dispose scope.</returns>
    public override Tensor forward(Tensor input) => nn.functional.linear(input, _weight());
}
