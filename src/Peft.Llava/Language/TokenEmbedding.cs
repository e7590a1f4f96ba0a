using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>The table of token vectors.</summary>
public sealed class TokenEmbedding : nn.Module<Tensor, Tensor>
{
#pragma warning disable IDE0044, CA1823 // registered by TorchSharp through reflection
    [TorchSharp.Utils.ComponentName(Name = "weight")] private Parameter _weight;
#pragma warning restore IDE0044, CA1823

    /// <summary>Creates the table over a given weight.</summary>
    /// <param name="weight">(V, D); this module takes ownership, the argument is empty afterwards.</param>
    /// <param name="name">The module's name.</param>
    public TokenEmbedding(Tensor weight, string name = nameof(TokenEmbedding))
        : base(name)
    {
        _weight = new Parameter(weight, requires_grad: false);
        RegisterComponents();
    }

    /// <summary>(V, D); owned by this module.</summary>
    public Parameter Weight => _weight;

    /// <summary>Looks rows up.</summary>
    /// <param name="input">I64 (...).</param>
    /// <returns>(..., D), in the current dispose scope.</returns>
    public override Tensor forward(Tensor input)
    {
        ArgumentNullException.ThrowIfNull(input);
        using var scope = NewDisposeScope();
        return _weight.index_select(0, input.flatten()).view([.. input.shape, _weight.shape[1]]).MoveToOuterDisposeScope();
    }

    /// <summary>Replaces the table by one with more (or fewer) rows; the caller fills it.</summary>
    /// <param name="weight">(V', D); this module takes ownership, the argument is empty afterwards.</param>
    internal void Replace(Tensor weight)
    {
        bool trained = _weight.requires_grad;
        var replacement = new Parameter(weight, requires_grad: trained);
        var old = _weight;
        register_parameter("weight", null!);
        _weight = replacement;
        register_parameter("weight", replacement);
        old.Dispose();
    }
}
