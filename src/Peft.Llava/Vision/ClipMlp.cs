using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>The MLP of one CLIP layer.</summary>
public sealed class ClipMlp : nn.Module<Tensor, Tensor>
{
#pragma warning disable IDE0044, CA1823 // registered by TorchSharp through reflection; adapters replace the fields' values
    [TorchSharp.Utils.ComponentName(Name = "fc1")] private nn.Module<Tensor, Tensor> _in;
    [TorchSharp.Utils.ComponentName(Name = "fc2")] private nn.Module<Tensor, Tensor> _out;
#pragma warning restore IDE0044, CA1823

    /// <summary>Creates the module.</summary>
    /// <param name="fc1">(Hv) to (intermediate).</param>
    /// <param name="fc2">Back.</param>
    public ClipMlp(nn.Module<Tensor, Tensor> fc1, nn.Module<Tensor, Tensor> fc2)
        : base(nameof(ClipMlp))
    {
        _in = fc1;
        _out = fc2;
        RegisterComponents();
    }

    /// <inheritdoc/>
    public override Tensor forward(Tensor input)
    {
        ArgumentNullException.ThrowIfNull(input);
        using var scope = NewDisposeScope();
        return _out.call(QuickGelu.Apply(_in.call(input.view(-1, input.shape[^1])))).view(input.shape).MoveToOuterDisposeScope();
    }
}
