using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>
/// The autograd function of a frozen linear layer with one plain adapter: y = x Wᵀ + b + s · drop(x) Aᵀ Bᵀ. It saves the input, which the
/// layers around it share, and the (rows, R) product with A; nothing as wide as the output.
/// </summary>
internal sealed class LoraMatMul : autograd.SingleTensorFunction<LoraMatMul>
{
    /// <summary>The name TorchSharp registers this function under.</summary>
    public override string Name => nameof(LoraMatMul);

    /// <summary>Applies base and adapter.</summary>
    /// <param name="layer">The storage; kept alive by the graph until the backward has run.</param>
    /// <param name="adapter">A plain adapter.</param>
    /// <param name="input">(..., in).</param>
    /// <param name="mask">Dropout, or null.</param>
    /// <param name="precision">The dtype of the adapter's products.</param>
    /// <returns>(..., out), in the current dispose scope.</returns>
    public static Tensor Call(FrozenLinear layer, LoraAdapter adapter, Tensor input, IDropoutMask? mask, AdapterPrecision precision)
    {
        // The scope also ends TorchSharp's own copy of the output's shape, which would be as large as the output.
        using var scope = NewDisposeScope();
        var call = new CallState(layer, adapter, adapter.Scaling, mask, precision, input.requires_grad);
        bool trainedBias = layer.BiasTensor is { requires_grad: true };
        bool needed = is_grad_enabled() && (input.requires_grad || trainedBias || adapter.A.requires_grad || adapter.B.requires_grad);
        if (!needed) return Forward(call, input).Output.MoveToOuterDisposeScope();
        var result = trainedBias
            ? apply(input, adapter.A, adapter.B, layer.BiasTensor!, call)
            : apply(input, adapter.A, adapter.B, call);
        return result.MoveToOuterDisposeScope();
    }

    /// <inheritdoc/>
    public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
    {
        var call = (CallState)vars[^1];
        var input = (Tensor)vars[0];
        ctx.set_materialize_grads(false);
        ctx.save_data("call", call);
        ctx.save_data("bias", vars.Length == 5);
        var (output, hidden) = BackwardOnly.IsOn ? (OfUnknownContent(call.Layer, input), Hidden(call, input)) : Forward(call, input);
        ctx.save_for_backward([input, hidden]);
        return output;
    }

    /// <inheritdoc/>
    public override List<Tensor> backward(autograd.AutogradContext ctx, Tensor grad_output)
    {
        using var scope = NewDisposeScope();
        var call = (CallState)ctx.get_data("call");
        bool bias = (bool)ctx.get_data("bias");
        var saved = BackwardTensors.Saved(ctx);
        var (input, hidden) = (saved[0], saved[1]);
        var (layer, adapter) = (call.Layer, call.Adapter);
        var compute = hidden.dtype;
        var gradient = grad_output.reshape(-1, layer.OutFeatures).contiguous();
        var (a, b) = (adapter.A.to(compute), adapter.B.to(compute));
        if (!ProductChoice.IsPacked(gradient, b)) gradient = gradient.to(compute);
        var narrow = LoraProducts.Multiply(gradient, b, call.Scaling);                                  // (rows, R): gradient of x Aᵀ
        Tensor? gradA = null, gradB = null, gradInput = null;
        if (adapter.B.requires_grad) gradB = LoraProducts.TransposeMultiply(gradient, hidden, call.Scaling).to(adapter.B.dtype);
        if (adapter.A.requires_grad)
        {
            gradA = LoraProducts.TransposeMultiply(narrow, Dropped(call, input, compute).reshape(-1, layer.InFeatures), 1).to(adapter.A.dtype);
        }
        if (call.InputNeedsGradient)
        {
            if (call.Mask is null) gradInput = LoraProducts.GradInput(layer, grad_output.reshape(-1, layer.OutFeatures).contiguous(), narrow, a).view([.. grad_output.shape[..^1], layer.InFeatures]);
            else
            {
                gradInput = layer.ApplyTransposed(grad_output);
                call.Mask.AddTo(LoraProducts.Multiply(narrow, a, 1).view(input.shape), gradInput);
            }
        }
        return bias
            ? BackwardTensors.Return(grad_output, gradInput, gradA, gradB, gradient.sum(dim: 0L).to(layer.BiasTensor!.dtype), null)
            : BackwardTensors.Return(grad_output, gradInput, gradA, gradB, null);
    }

    private static (Tensor Output, Tensor Hidden) Forward(CallState call, Tensor input)
    {
        var hidden = Hidden(call, input);
        return (LoraProducts.Forward(call.Layer, input, hidden, call.Adapter.B.to(hidden.dtype), call.Scaling), hidden);
    }

    /// <summary>(rows, R): drop(x) Aᵀ.</summary>
    private static Tensor Hidden(CallState call, Tensor input)
    {
        var compute = call.Precision == AdapterPrecision.BaseDtype ? input.dtype : call.Adapter.A.dtype;
        return LoraProducts.Hidden(Dropped(call, input, compute).reshape(-1, call.Layer.InFeatures), call.Adapter.A.to(compute));
    }

    // As PEFT: first the cast, then the dropping, whose scaling would be rounded otherwise. Without dropping the products cast by themselves.
    private static Tensor Dropped(CallState call, Tensor input, ScalarType compute)
        => call.Mask is null ? input : call.Mask.Apply(input.to(compute));

    private static Tensor OfUnknownContent(FrozenLinear layer, Tensor input)
        => empty([.. input.shape[..^1], layer.OutFeatures], input.dtype, input.device);

    private sealed record CallState(
        FrozenLinear Layer, LoraAdapter Adapter, double Scaling, IDropoutMask? Mask, AdapterPrecision Precision, bool InputNeedsGradient);
}
