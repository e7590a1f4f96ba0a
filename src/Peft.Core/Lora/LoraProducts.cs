using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>
/// The products of a linear layer with one plain adapter, without autograd. Where the base's product is packed, the adapter's part is added to its sums
/// before they are rounded; elsewhere libtorch adds it in one operator.
/// </summary>
internal static unsafe class LoraProducts
{
    /// <summary><c>x Aᵀ</c>.</summary>
    /// <param name="x">(rows, in).</param>
    /// <param name="a">(R, in), whose dtype is that of the adapter's products.</param>
    /// <returns>(rows, R) in the dtype of <paramref name="a"/>.</returns>
    public static Tensor Hidden(Tensor x, Tensor a)
    {
        a = a.contiguous();
        // Widening a bfloat16 input happens while it is packed; rounding a float32 one does not.
        var left = a.dtype == ScalarType.Float32 && ProductChoice.IsPacked(x, a) ? x : x.to(a.dtype);
        if (ProductChoice.IsPacked(left, a) && FewRowsProduct.CanRun(left.contiguous(), a)) return FewRowsProduct.Run(left.contiguous(), a, null, a.dtype);
        return ProductChoice.IsPacked(left, a) ? Packed(left, new RowPanels(MatrixMemory.Of(a)), a.dtype, 1) : left.matmul(a.t());
    }

    /// <summary><c>x Wᵀ + b + s · h Bᵀ</c>.</summary>
    /// <param name="layer">The frozen layer.</param>
    /// <param name="input">(..., in).</param>
    /// <param name="hidden">(rows, R).</param>
    /// <param name="b">(out, R), of the dtype of <paramref name="hidden"/>.</param>
    /// <param name="scaling">s.</param>
    /// <returns>(..., out) in the input's dtype.</returns>
    public static Tensor Forward(FrozenLinear layer, Tensor input, Tensor hidden, Tensor b, double scaling)
    {
        if (IsFused(hidden, b) && layer.PanelsFor(input.dtype, transposed: false) is { } panels)
        {
            var x = input.contiguous();
            var output = empty([.. input.shape[..^1], layer.OutFeatures], input.dtype);
            using var bias = layer.BiasTensor?.to(ScalarType.Float32).contiguous();
            PackedProduct.Run(
                [new(MatrixMemory.Of(x), panels), new(MatrixMemory.Of(hidden), new RowPanels(MatrixMemory.Of(b.contiguous()), (float)scaling))],
                new ResultMemory(MatrixMemory.Of(output), bias is null ? 0 : (nint)CpuTensor.Pointer(bias)));
            GC.KeepAlive(layer);
            return output;
        }
        var result = layer.Apply(input);
        MatrixProduct.AddLinear(result.view(-1, layer.OutFeatures), hidden, b, scaling);
        return result;
    }

    /// <summary><c>s · x W</c>.</summary>
    /// <param name="x">(rows, out).</param>
    /// <param name="weight">(out, in), whose dtype is that of the product.</param>
    /// <param name="factor">s.</param>
    /// <returns>(rows, in) in the dtype of <paramref name="weight"/>.</returns>
    public static Tensor Multiply(Tensor x, Tensor weight, double factor)
    {
        if (ProductChoice.IsPacked(x, weight)) return Packed(x, new ColumnPanels(MatrixMemory.Of(weight.contiguous())), weight.dtype, factor);
        var product = x.to(weight.dtype).matmul(weight);
        return factor == 1 ? product : TensorMath.Scale(product, factor);
    }

    /// <summary><c>s · gᵀ x</c>.</summary>
    /// <param name="gradient">(rows, out).</param>
    /// <param name="x">(rows, in).</param>
    /// <param name="factor">s.</param>
    /// <returns>(out, in), in the wider dtype of the two.</returns>
    public static Tensor TransposeMultiply(Tensor gradient, Tensor x, double factor)
    {
        var dtype = gradient.dtype == ScalarType.Float32 ? gradient.dtype : x.dtype;
        var product = ProductChoice.IsPacked(gradient, x)
            ? MatrixProduct.TransposeMultiply(gradient, x, dtype)
            : gradient.to(dtype).t().matmul(x.to(dtype));
        return factor == 1 ? product : TensorMath.Scale(product, factor);
    }

    /// <summary><c>g W + n A</c>: the gradient of the input without dropout.</summary>
    /// <param name="layer">The frozen layer.</param>
    /// <param name="gradient">(rows, out).</param>
    /// <param name="narrow">(rows, R): the gradient of <c>x Aᵀ</c>.</param>
    /// <param name="a">(R, in), of the dtype of <paramref name="narrow"/>.</param>
    /// <returns>(rows, in) in the gradient's dtype.</returns>
    public static Tensor GradInput(FrozenLinear layer, Tensor gradient, Tensor narrow, Tensor a)
    {
        if (IsFused(narrow, a) && layer.PanelsFor(gradient.dtype, transposed: true) is { } panels)
        {
            var result = empty([gradient.shape[0], layer.InFeatures], gradient.dtype);
            PackedProduct.Run(
                [new(MatrixMemory.Of(gradient), panels), new(MatrixMemory.Of(narrow), new ColumnPanels(MatrixMemory.Of(a.contiguous())))],
                new ResultMemory(MatrixMemory.Of(result)));
            GC.KeepAlive(layer);
            return result;
        }
        var own = layer.ApplyTransposed(gradient);
        if (own.dtype == narrow.dtype && !ProductChoice.IsPacked(narrow, a)) own.addmm_(narrow, a, 1, 1);
        else TensorMath.AddTo(own, Multiply(narrow, a, 1));
        return own;
    }

    private static bool IsFused(Tensor left, Tensor right) => left.shape[0] > FewRowsProduct.MostRows && ProductChoice.IsPacked(left, right);

    private static Tensor Packed(Tensor x, IPanelSource right, ScalarType dtype, double factor)
    {
        var left = x.contiguous();
        var result = empty([x.shape[0], right.Columns], dtype);
        PackedProduct.Run([new ProductTerm(MatrixMemory.Of(left), right, (float)factor)], new ResultMemory(MatrixMemory.Of(result)));
        return result;
    }
}
