using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Quantization.Tests;

/// <summary>A model of one linear layer, <c>fc</c>.</summary>
internal sealed class OneLayer : nn.Module<Tensor, Tensor>
{
#pragma warning disable IDE0044, CA1823 // registered by TorchSharp through reflection
    [TorchSharp.Utils.ComponentName(Name = "fc")] private nn.Module<Tensor, Tensor> _layer;
#pragma warning restore IDE0044, CA1823

    public OneLayer(nn.Module<Tensor, Tensor> layer)
        : base(nameof(OneLayer))
    {
        _layer = layer;
        RegisterComponents();
    }

    public nn.Module<Tensor, Tensor> Layer => _layer;

    public override Tensor forward(Tensor input) => _layer.call(input);
}
