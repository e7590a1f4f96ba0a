using Peft.Core;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>The gated MLP of one decoder layer: down(silu(gate(x)) * up(x)).</summary>
public sealed class LlamaMlp : nn.Module<Tensor, Tensor>
{
#pragma warning disable IDE0044, CA1823 // registered by TorchSharp through reflection; adapters replace the fields' values
    [TorchSharp.Utils.ComponentName(Name = "gate_proj")] private nn.Module<Tensor, Tensor> _gate;
    [TorchSharp.Utils.ComponentName(Name = "up_proj")] private nn.Module<Tensor, Tensor> _up;
    [TorchSharp.Utils.ComponentName(Name = "down_proj")] private nn.Module<Tensor, Tensor> _down;
#pragma warning restore IDE0044, CA1823

    internal LlamaMlp(nn.Module<Tensor, Tensor> gate, nn.Module<Tensor, Tensor> up, nn.Module<Tensor, Tensor> down)
        : base(nameof(LlamaMlp))
    {
        _gate = gate;
        _up = up;
        _down = down;
        RegisterComponents();
    }

    /// <inheritdoc/>
    public override Tensor forward(Tensor input)
    {
        ArgumentNullException.ThrowIfNull(input);
        using var scope = NewDisposeScope();
        var (gate, up) = (_gate.call(input), _up.call(input));
        var activated = KernelChoice.Fuses(input.shape[0]) ? SwiGlu.Apply(gate, up) : SwiGlu.Reference(gate, up);
        // The last product of a layer that runs again for its backward: nobody reads it.
        using var region = GradientCheckpoint.RunsAgain ? BackwardOnly.Begin() : null;
        return _down.call(activated).MoveToOuterDisposeScope();
    }
}
