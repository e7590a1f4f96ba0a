using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>Products of many pairs of matrices at once, each on one thread, as <see cref="ProductChoice"/> says. With autograd.</summary>
public static class BatchProduct
{
    /// <summary><c>a b</c>, or <c>a bᵀ</c>, for each pair.</summary>
    /// <param name="a">(..., rows, depth).</param>
    /// <param name="b">(..., depth, columns), or (..., columns, depth) if <paramref name="transposed"/>; the same leading dimensions.</param>
    /// <param name="transposed">Whether each b is transposed.</param>
    /// <returns>A fresh (..., rows, columns) tensor in the dtype of <paramref name="a"/>, in the current dispose scope.</returns>
    public static Tensor Multiply(Tensor a, Tensor b, bool transposed = false)
    {
        ArgumentNullException.ThrowIfNull(a);
        ArgumentNullException.ThrowIfNull(b);
        using var scope = NewDisposeScope();
        if (!ProductChoice.IsPacked(a, b)) return a.matmul(transposed ? b.transpose(-2, -1) : b).MoveToOuterDisposeScope();
        bool needed = is_grad_enabled() && (a.requires_grad || b.requires_grad);
        var form = transposed ? ProductForm.RightTransposed : ProductForm.None;
        return (needed ? Function.apply(a, b, form) : Run(a, b, form)).MoveToOuterDisposeScope();
    }

    private static Tensor Run(Tensor a, Tensor b, ProductForm form)
    {
        using var scope = NewDisposeScope();
        var (left, right) = (a.contiguous(), b.contiguous());
        bool leftTransposed = form.HasFlag(ProductForm.LeftTransposed), rightTransposed = form.HasFlag(ProductForm.RightTransposed);
        long rows = leftTransposed ? left.shape[^1] : left.shape[^2], columns = rightTransposed ? right.shape[^2] : right.shape[^1];
        var result = empty([.. a.shape[..^2], rows, columns], a.dtype);
        var (l, r, y) = (MatrixMemory.Of(left), MatrixMemory.Of(right), MatrixMemory.Of(result));
        long leftRows = left.shape[^2], rightRows = right.shape[^2], count = rows * columns == 0 ? 0 : result.numel() / (rows * columns);
        CpuParallel.For(count, 1, (begin, end) =>
        {
            for (long i = begin; i < end; i++)
                PackedProduct.Multiply(l.Part(i * leftRows, leftRows, 0, l.Columns), r.Part(i * rightRows, rightRows, 0, r.Columns), y.Part(i * rows, rows, 0, columns), form);
        });
        return result.MoveToOuterDisposeScope();
    }

    private sealed class Function : autograd.SingleTensorFunction<Function>
    {
        public override string Name => nameof(BatchProduct);

        public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
        {
            ctx.set_materialize_grads(false);
            var (a, b) = ((Tensor)vars[0], (Tensor)vars[1]);
            ctx.save_for_backward([a, b]);
            ctx.save_data("form", vars[2]);
            return Run(a, b, (ProductForm)vars[2]);
        }

        public override List<Tensor> backward(autograd.AutogradContext ctx, Tensor grad_output)
        {
            using var scope = NewDisposeScope();
            bool transposed = (ProductForm)ctx.get_data("form") == ProductForm.RightTransposed;
            var saved = BackwardTensors.Saved(ctx);
            var (a, b) = (saved[0], saved[1]);
            var ofA = Run(grad_output, b, transposed ? ProductForm.None : ProductForm.RightTransposed);
            var ofB = transposed ? Run(grad_output, a, ProductForm.LeftTransposed) : Run(a, grad_output, ProductForm.LeftTransposed);
            return BackwardTensors.Return(grad_output, ofA, ofB, null);
        }
    }
}
