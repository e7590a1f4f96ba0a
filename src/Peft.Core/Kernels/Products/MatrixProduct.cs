using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>
/// Matrix products, each computed as <see cref="ProductChoice"/> says. On the packed product operands may be float32 and bfloat16 mixed, and sums are
/// float32, rounded once; else they are libtorch's.
/// </summary>
public static unsafe class MatrixProduct
{
    /// <summary><c>x Wᵀ + b</c>, with autograd towards all three.</summary>
    /// <param name="x">(..., in).</param>
    /// <param name="weight">(out, in).</param>
    /// <param name="bias">(out), or null.</param>
    /// <returns>A fresh (..., out) tensor in the dtype of <paramref name="x"/>, in the current dispose scope.</returns>
    public static Tensor Linear(Tensor x, Tensor weight, Tensor? bias = null)
    {
        ArgumentNullException.ThrowIfNull(x);
        ArgumentNullException.ThrowIfNull(weight);
        if (!ProductChoice.IsPacked(x, weight)) return nn.functional.linear(x, weight, bias);
        bool needed = is_grad_enabled() && (x.requires_grad || weight.requires_grad || bias is { requires_grad: true });
        if (!needed) return Forward(x, weight, bias);
        using var scope = NewDisposeScope();
        return LinearFunction.Call(x, weight, bias).MoveToOuterDisposeScope();
    }

    /// <summary><c>target += s · x Wᵀ</c>, without autograd; the sum is rounded once.</summary>
    /// <param name="target">(rows, out), changed in place.</param>
    /// <param name="x">(rows, in).</param>
    /// <param name="weight">(out, in), of the dtype of <paramref name="x"/>.</param>
    /// <param name="factor">s.</param>
    public static void AddLinear(Tensor target, Tensor x, Tensor weight, double factor = 1)
    {
        ArgumentNullException.ThrowIfNull(target);
        ArgumentNullException.ThrowIfNull(x);
        ArgumentNullException.ThrowIfNull(weight);
        using var scope = NewDisposeScope();
        if (ProductChoice.IsPacked(x, weight) && CpuTensor.IsKernelReady(target))
        {
            var (left, right) = (x.contiguous(), weight.contiguous());
            if (FewRowsProduct.CanRun(left, right))
            {
                using Scalar scale = factor;
                target.add_(FewRowsProduct.Run(left, right, null, ScalarType.Float32), scale);
                return;
            }
            PackedProduct.Run([new(MatrixMemory.Of(left), new RowPanels(MatrixMemory.Of(right), (float)factor))], new ResultMemory(MatrixMemory.Of(target), Add: true));
        }
        else if (target.dtype == x.dtype) target.addmm_(x, weight.t(), 1, (float)factor);
        else target.copy_(target.to(x.dtype).addmm_(x, weight.t(), 1, (float)factor));
    }

    /// <summary><c>x W</c>, without autograd.</summary>
    /// <param name="x">(..., out).</param>
    /// <param name="weight">(out, in).</param>
    /// <returns>A fresh (..., in) tensor in the dtype of <paramref name="x"/>, in the current dispose scope.</returns>
    public static Tensor Multiply(Tensor x, Tensor weight)
    {
        ArgumentNullException.ThrowIfNull(x);
        ArgumentNullException.ThrowIfNull(weight);
        if (!ProductChoice.IsPacked(x, weight)) return x.matmul(weight);
        using var scope = NewDisposeScope();
        var w = weight.contiguous();
        return Apply(x, new ColumnPanels(MatrixMemory.Of(w)), null).MoveToOuterDisposeScope();
    }

    /// <summary><c>gᵀ x</c>: the gradient of a weight, without autograd.</summary>
    /// <param name="gradOutput">(rows, out).</param>
    /// <param name="x">(rows, in).</param>
    /// <returns>A fresh (out, in) tensor in the dtype of <paramref name="x"/>, in the current dispose scope.</returns>
    public static Tensor TransposeMultiply(Tensor gradOutput, Tensor x)
    {
        ArgumentNullException.ThrowIfNull(gradOutput);
        ArgumentNullException.ThrowIfNull(x);
        return ProductChoice.IsPacked(gradOutput, x) ? TransposeMultiply(gradOutput, x, x.dtype) : gradOutput.t().matmul(x);
    }

    internal static Tensor TransposeMultiply(Tensor gradOutput, Tensor x, ScalarType dtype)
    {
        using var scope = NewDisposeScope();
        var (g, right) = (gradOutput.contiguous(), x.contiguous());
        // The narrower matrix is the one that is packed transposed, which costs more.
        bool swap = g.shape[1] > right.shape[1];
        var (left, other) = swap ? (right, g) : (g, right);
        var result = empty([g.shape[1], right.shape[1]], dtype);
        PackedProduct.Run(
            [new ProductTerm(MatrixMemory.Of(left), new ColumnPanels(MatrixMemory.Of(other)), Transposed: true)],
            new ResultMemory(MatrixMemory.Of(result), Transposed: swap));
        return result.MoveToOuterDisposeScope();
    }

    /// <summary><c>x B + b</c> on the packed product, for a right-hand side that decodes itself. Without autograd.</summary>
    /// <param name="x">(..., depth), float32 or bfloat16 on the CPU.</param>
    /// <param name="right">(depth, columns); its memory must outlive the call.</param>
    /// <param name="bias">(columns), or null.</param>
    /// <returns>A fresh (..., columns) tensor in the dtype of <paramref name="x"/>, in the current dispose scope.</returns>
    public static Tensor Apply(Tensor x, IPanelSource right, Tensor? bias)
    {
        ArgumentNullException.ThrowIfNull(x);
        ArgumentNullException.ThrowIfNull(right);
        using var scope = NewDisposeScope();
        var left = x.contiguous();
        if (right is DecodedPanels { IsTransposed: false } decoded && FewRowsProduct.IsFew(left, decoded.Depth)) return FewRowsProduct.Run(left, decoded, bias).MoveToOuterDisposeScope();
        var result = empty([.. x.shape[..^1], right.Columns], x.dtype);
        var wideBias = bias?.to(ScalarType.Float32).contiguous();
        PackedProduct.Run([new ProductTerm(MatrixMemory.Of(left), right)], new ResultMemory(MatrixMemory.Of(result), wideBias is null ? 0 : (nint)CpuTensor.Pointer(wideBias)));
        return result.MoveToOuterDisposeScope();
    }

    private static Tensor Forward(Tensor x, Tensor weight, Tensor? bias)
    {
        using var scope = NewDisposeScope();
        var w = weight.contiguous();
        var result = FewRowsProduct.CanRun(x, w) ? FewRowsProduct.Run(x, w, bias) : Apply(x, new RowPanels(MatrixMemory.Of(w)), bias);
        return result.MoveToOuterDisposeScope();
    }

    private sealed class LinearFunction : autograd.SingleTensorFunction<LinearFunction>
    {
        public override string Name => nameof(MatrixProduct);

        public static Tensor Call(Tensor x, Tensor weight, Tensor? bias)
            => bias is null ? apply(x, weight, "") : apply(x, weight, bias, "");

        public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
        {
            ctx.set_materialize_grads(false);
            var (x, weight) = ((Tensor)vars[0], (Tensor)vars[1]);
            var bias = vars.Length == 4 ? (Tensor)vars[2] : null;
            ctx.save_for_backward([x, weight]);
            ctx.save_data("bias", bias?.dtype);
            ctx.save_data("needs", (x.requires_grad, weight.requires_grad, bias is { requires_grad: true }));
            return Forward(x, weight, bias);
        }

        public override List<Tensor> backward(autograd.AutogradContext ctx, Tensor grad_output)
        {
            using var scope = NewDisposeScope();
            var (ofX, ofWeight, ofBias) = ((bool, bool, bool))ctx.get_data("needs");
            var biasDtype = (ScalarType?)ctx.get_data("bias");
            var saved = BackwardTensors.Saved(ctx);
            var (x, weight) = (saved[0], saved[1]);
            var rows = grad_output.reshape(-1, weight.shape[0]);
            var gradX = ofX ? Multiply(grad_output, weight) : null;
            var gradWeight = ofWeight ? TransposeMultiply(rows, x.reshape(-1, weight.shape[1])).to(weight.dtype) : null;
            if (biasDtype is not { } dtype) return BackwardTensors.Return(grad_output, gradX, gradWeight, null);
            return BackwardTensors.Return(grad_output, gradX, gradWeight, ofBias ? rows.sum(dim: 0L).to(dtype) : null, null);
        }
    }
}
