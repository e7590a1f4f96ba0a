using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>
/// The autograd function of a <see cref="FrozenLinear"/>: forward <c>x Wᵀ + b</c>, backward <c>g W</c>. It saves nothing, since a frozen
/// weight needs no gradient and its layer is asked for the product again.
/// </summary>
internal sealed class FrozenMatMul : autograd.SingleTensorFunction<FrozenMatMul>
{
    /// <summary>The name TorchSharp registers this function under.</summary>
    public override string Name => nameof(FrozenMatMul);

    /// <summary>Applies <paramref name="layer"/> to <paramref name="input"/>.</summary>
    /// <param name="layer">The layer; kept alive by the graph until the backward has run.</param>
    /// <param name="input">(..., in).</param>
    /// <returns>(..., out), in the current dispose scope.</returns>
    public static Tensor Call(FrozenLinear layer, Tensor input)
    {
        bool trainedBias = layer.BiasTensor is { requires_grad: true };
        if (!is_grad_enabled() || (!input.requires_grad && !trainedBias))
            return layer.Apply(input);
        // The scope ends TorchSharp's own copy of the output's shape, which is as large as the output.
        using var scope = NewDisposeScope();
        var result = trainedBias ? apply(input, layer.BiasTensor!, layer) : apply(input, layer);
        return result.MoveToOuterDisposeScope();
    }

    /// <inheritdoc/>
    public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
    {
        var layer = (FrozenLinear)vars[^1];
        ctx.set_materialize_grads(false);
        ctx.save_data("layer", layer);
        ctx.save_data("bias", vars.Length == 3);
        return layer.Apply((Tensor)vars[0]);
    }

    /// <inheritdoc/>
    public override List<Tensor> backward(autograd.AutogradContext ctx, Tensor grad_output)
    {
        var layer = (FrozenLinear)ctx.get_data("layer");
        bool bias = (bool)ctx.get_data("bias");
        using var scope = NewDisposeScope();
        var gradInput = layer.ApplyTransposed(grad_output);
        if (!bias) return BackwardTensors.Return(grad_output, gradInput, null);
        var gradBias = grad_output.reshape(-1, layer.OutFeatures).sum(dim: 0L).to(layer.BiasTensor!.dtype);
        return BackwardTensors.Return(grad_output, gradInput, gradBias, null);
    }
}
