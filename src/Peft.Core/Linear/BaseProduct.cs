using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>
/// The autograd function <c>x Wᵀ</c> of a <see cref="FrozenLinear"/> in the input's own dtype, without the bias: the weight is decoded for the
/// product and again for the backward, and nothing of its size is kept between the two.
/// </summary>
internal sealed class BaseProduct : autograd.SingleTensorFunction<BaseProduct>
{
    /// <summary>The name TorchSharp registers this function under.</summary>
    public override string Name => nameof(BaseProduct);

    /// <summary>Applies a layer's weight.</summary>
    /// <param name="layer">The layer; kept alive by the graph until the backward has run.</param>
    /// <param name="input">(..., in), of any floating dtype.</param>
    /// <returns>(..., out) of the input's dtype, in the current dispose scope.</returns>
    public static Tensor Call(FrozenLinear layer, Tensor input)
    {
        using var scope = NewDisposeScope();
        if (layer.WeightIsTrained)
        {
            var own = layer.call(input.to(layer.WeightDtype));
            return (layer.BiasTensor is { } bias ? own - bias : own).to(input.dtype).MoveToOuterDisposeScope();
        }
        var result = is_grad_enabled() && input.requires_grad ? apply(input, layer) : Product(layer, input);
        return result.MoveToOuterDisposeScope();
    }

    /// <inheritdoc/>
    public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
    {
        var (input, layer) = ((Tensor)vars[0], (FrozenLinear)vars[1]);
        ctx.set_materialize_grads(false);
        ctx.save_data("layer", layer);
        return Product(layer, input);
    }

    /// <inheritdoc/>
    public override List<Tensor> backward(autograd.AutogradContext ctx, Tensor grad_output)
    {
        var layer = (FrozenLinear)ctx.get_data("layer");
        using var scope = NewDisposeScope();
        using var weight = layer.MaterializeWeight(grad_output.dtype);
        return BackwardTensors.Return(grad_output, MatrixProduct.Multiply(grad_output, weight), null);
    }

    private static Tensor Product(FrozenLinear layer, Tensor input)
    {
        using var weight = layer.MaterializeWeight(input.dtype);
        return MatrixProduct.Linear(input, weight);
    }
}
