using Peft.Core;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>The output head of a checkpoint with tied embeddings: the embedding, used a second time. It has no parameter of its own.</summary>
public sealed class TiedHead : nn.Module<Tensor, Tensor>, ITiedLinear
{
    // A function, not a field: a field would be registered and give the weight a second name.
    private readonly Func<Parameter> _weight;

    /// <summary>Creates the head.</summary>
    /// <param name="weight">Gives the embedding's table (V, D), which stays its owner's.</param>
    public TiedHead(Func<Parameter> weight)
        : base(nameof(TiedHead))
    {
        _weight = weight;
        RegisterComponents();
    }

    /// <inheritdoc/>
    public Parameter Weight => _weight();

    /// <summary>Scores every token.</summary>
    /// <param name="input">(..., D).</param>
    /// <returns>(..., V), in the current dispose scope.</returns>
    public override Tensor forward(Tensor input) => MatrixProduct.Linear(input, Weight);
}
