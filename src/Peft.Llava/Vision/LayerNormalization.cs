using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>An ordinary layer norm over the last dimension, with given weight and bias.</summary>
public sealed class LayerNormalization : nn.Module<Tensor, Tensor>
{
#pragma warning disable IDE0044, CA1823 // registered by TorchSharp through reflection
    [TorchSharp.Utils.ComponentName(Name = "weight")] private Parameter _weight;
    [TorchSharp.Utils.ComponentName(Name = "bias")] private Parameter _bias;
#pragma warning restore IDE0044, CA1823
    private readonly double _epsilon;

    /// <summary>Creates the norm.</summary>
    /// <param name="weight">(D); this module takes ownership, the argument is empty afterwards.</param>
    /// <param name="bias">(D); ownership is taken as well.</param>
    /// <param name="epsilon">Added to the variance.</param>
    public LayerNormalization(Tensor weight, Tensor bias, double epsilon)
        : base(nameof(LayerNormalization))
    {
        _weight = new Parameter(weight, requires_grad: false);
        _bias = new Parameter(bias, requires_grad: false);
        _epsilon = epsilon;
        RegisterComponents();
    }

    /// <inheritdoc/>
    public override Tensor forward(Tensor input)
    {
        ArgumentNullException.ThrowIfNull(input);
        return nn.functional.layer_norm(input, [input.shape[^1]], _weight, _bias, _epsilon);
    }
}
