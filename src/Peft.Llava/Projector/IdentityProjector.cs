using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>The projector that passes the tower's features on.</summary>
public sealed class IdentityProjector : nn.Module<Tensor, Tensor>
{
    /// <summary>Creates the module.</summary>
    public IdentityProjector()
        : base(nameof(IdentityProjector)) => RegisterComponents();

    /// <inheritdoc/>
    public override Tensor forward(Tensor input)
    {
        ArgumentNullException.ThrowIfNull(input);
        return input.alias();
    }
}
