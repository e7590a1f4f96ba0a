using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>A dropout mask as an autograd function: the mask is applied again to the gradient instead of being kept.</summary>
internal sealed class DropoutFunction : autograd.SingleTensorFunction<DropoutFunction>
{
    /// <summary>The name TorchSharp registers this function under.</summary>
    public override string Name => nameof(DropoutFunction);

    /// <summary>Applies a mask.</summary>
    /// <param name="mask">The mask.</param>
    /// <param name="input">A tensor of its shape.</param>
    /// <returns>The masked tensor, in the current dispose scope.</returns>
    public static Tensor Call(IDropoutMask mask, Tensor input)
    {
        if (!is_grad_enabled() || !input.requires_grad) return mask.Apply(input);
        using var scope = NewDisposeScope();
        return apply(input, mask).MoveToOuterDisposeScope();
    }

    /// <inheritdoc/>
    public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
    {
        var mask = (IDropoutMask)vars[1];
        ctx.set_materialize_grads(false);
        ctx.save_data("mask", mask);
        return mask.Apply((Tensor)vars[0]);
    }

    /// <inheritdoc/>
    public override List<Tensor> backward(autograd.AutogradContext ctx, Tensor grad_output)
        => BackwardTensors.Return(grad_output, ((IDropoutMask)ctx.get_data("mask")).Apply(grad_output), null);
}
