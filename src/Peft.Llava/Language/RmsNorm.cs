using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>LLaMA's root-mean-square norm over the last dimension.</summary>
public sealed class RmsNorm : nn.Module<Tensor, Tensor>
{
#pragma warning disable IDE0044, CA1823 // registered by TorchSharp through reflection
    [TorchSharp.Utils.ComponentName(Name = "weight")] private Parameter _weight;
#pragma warning restore IDE0044, CA1823
    private readonly double _epsilon;

    /// <summary>Creates the norm over a given weight.</summary>
    /// <param name="weight">(D); this module takes ownership, the argument is empty afterwards.</param>
    /// <param name="epsilon">Added to the mean square.</param>
    /// <param name="name">The module's name.</param>
    public RmsNorm(Tensor weight, double epsilon, string name = nameof(RmsNorm))
        : base(name)
    {
        _weight = new Parameter(weight, requires_grad: false);
        _epsilon = epsilon;
        RegisterComponents();
    }

    /// <summary>(D); owned by this module.</summary>
    public Parameter Weight => _weight;

    /// <inheritdoc/>
    public override Tensor forward(Tensor input)
    {
        ArgumentNullException.ThrowIfNull(input);
        return KernelChoice.Fuses(input.shape[0])
            ? RmsNormalization.Apply(input, _weight, _epsilon)
            : RmsNormalization.Reference(input, _weight, _epsilon);
    }
}
