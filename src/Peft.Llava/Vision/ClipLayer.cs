using Peft.Core;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>One CLIP layer: x + attention(norm(x)), then x + mlp(norm(x)).</summary>
public sealed class ClipLayer : nn.Module<Tensor, Tensor>
{
#pragma warning disable IDE0044, CA1823 // registered by TorchSharp through reflection
    [TorchSharp.Utils.ComponentName(Name = "self_attn")] private nn.Module<Tensor, Tensor> _attention;
    [TorchSharp.Utils.ComponentName(Name = "layer_norm1")] private nn.Module<Tensor, Tensor> _norm1;
    [TorchSharp.Utils.ComponentName(Name = "mlp")] private nn.Module<Tensor, Tensor> _mlp;
    [TorchSharp.Utils.ComponentName(Name = "layer_norm2")] private nn.Module<Tensor, Tensor> _norm2;
#pragma warning restore IDE0044, CA1823

    /// <summary>Creates the layer.</summary>
    /// <param name="attention">Its attention.</param>
    /// <param name="norm1">The norm before the attention.</param>
    /// <param name="mlp">Its MLP.</param>
    /// <param name="norm2">The norm before the MLP.</param>
    public ClipLayer(
        nn.Module<Tensor, Tensor> attention, nn.Module<Tensor, Tensor> norm1, nn.Module<Tensor, Tensor> mlp, nn.Module<Tensor, Tensor> norm2)
        : base(nameof(ClipLayer))
    {
        _attention = attention;
        _norm1 = norm1;
        _mlp = mlp;
        _norm2 = norm2;
        RegisterComponents();
    }

    /// <inheritdoc/>
    public override Tensor forward(Tensor input)
    {
        using var scope = NewDisposeScope();
        var h = TensorMath.Add(input, _attention.call(_norm1.call(input)));
        return TensorMath.Add(h, _mlp.call(_norm2.call(h))).MoveToOuterDisposeScope();
    }
}
