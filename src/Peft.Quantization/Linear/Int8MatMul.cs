using Peft.Core;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Quantization;

/// <summary>The integer product of LLM.int8 and the way back to floating point.</summary>
public static class Int8MatMul
{
    // TorchSharp has no binding of libtorch's int8 product; a script reaches it.
    private static readonly Lazy<jit.CompilationUnit> Script = new(() => jit.compile("def int_mm(a, b):\n    return torch._int_mm(a, b)\n"));
    private static readonly Lock Gate = new();

    /// <summary>a bᵀ in integers.</summary>
    /// <param name="a">(rows, inner) int8.</param>
    /// <param name="b">(columns, inner) int8.</param>
    /// <returns>(rows, columns) int32, fresh, in the current dispose scope.</returns>
    public static Tensor Multiply(Tensor a, Tensor b)
    {
        ArgumentNullException.ThrowIfNull(a);
        ArgumentNullException.ThrowIfNull(b);
        using var transposed = b.t();
        lock (Gate) return (Tensor)Script.Value.invoke("int_mm", a, transposed);
    }

    /// <summary><see cref="Multiply"/> and <see cref="Rescale"/> in one, on the CPU without the products' own memory where libtorch's integer product is slow.</summary>
    /// <param name="a">(rows, inner) int8.</param>
    /// <param name="b">(columns, inner) int8.</param>
    /// <param name="rowMaxima">(rows) fp32.</param>
    /// <param name="columnMaxima">(columns) fp32.</param>
    /// <param name="bias">(columns) or null.</param>
    /// <param name="dtype">The dtype wanted.</param>
    /// <param name="rescaling">The factor: 1 / 127², or the rounded ones of bitsandbytes.</param>
    /// <returns>(rows, columns), fresh, in the current dispose scope.</returns>
    public static unsafe Tensor MultiplyRescaled(
        Tensor a, Tensor b, Tensor rowMaxima, Tensor columnMaxima, Tensor? bias, ScalarType dtype, Int8Rescaling rescaling = Int8Rescaling.Exact)
    {
        ArgumentNullException.ThrowIfNull(a);
        ArgumentNullException.ThrowIfNull(b);
        using var scope = NewDisposeScope();
        if (a.device_type != DeviceType.CPU || ProductChoice.For(ScalarType.BFloat16) != ProductEngine.Packed || KernelSelection.Current == KernelLevel.Reference)
            return Rescale(Multiply(a, b), rowMaxima, columnMaxima, bias, dtype, rescaling).MoveToOuterDisposeScope();
        using var noGrad = no_grad();
        var target = empty([a.shape[0], b.shape[0]], dtype);
        var (codes, weight, rows, columns, wideBias) = (a.contiguous(), b.contiguous(), rowMaxima.contiguous(), columnMaxima.contiguous(), bias?.to(ScalarType.Float32).contiguous());
        PackedProduct.MultiplyIntegers(codes, weight, new IntegerRescale(
            (float*)CpuTensor.Pointer(rows), (float*)CpuTensor.Pointer(columns), Step(rescaling), wideBias is null ? null : (float*)CpuTensor.Pointer(wideBias),
            CpuTensor.Pointer(target), FloatElements.KindOf(dtype), b.shape[0]));
        return target.MoveToOuterDisposeScope();
    }

    /// <summary>products * (row maximum * column maximum) * factor + bias, in fp32, rounded to the dtype.</summary>
    /// <param name="products">(rows, columns) int32.</param>
    /// <param name="rowMaxima">(rows) fp32.</param>
    /// <param name="columnMaxima">(columns) fp32.</param>
    /// <param name="bias">(columns) or null.</param>
    /// <param name="dtype">The dtype wanted.</param>
    /// <param name="rescaling">The factor: 1 / 127², or the rounded ones of bitsandbytes.</param>
    /// <returns>(rows, columns), fresh, in the current dispose scope.</returns>
    public static Tensor Rescale(
        Tensor products, Tensor rowMaxima, Tensor columnMaxima, Tensor? bias, ScalarType dtype, Int8Rescaling rescaling = Int8Rescaling.Exact)
    {
        ArgumentNullException.ThrowIfNull(products);
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var target = empty(products.shape, dtype, products.device);
        KernelSelection.For(products.device).ScaleProducts(products, rowMaxima, columnMaxima, Step(rescaling), bias?.to(ScalarType.Float32), target);
        return target.MoveToOuterDisposeScope();
    }

    private static float Step(Int8Rescaling rescaling) => rescaling switch
    {
        Int8Rescaling.BitsandbytesCpu => 6.200124e-05f,
        Int8Rescaling.BitsandbytesGpu => 6.200012e-05f,
        _ => (float)(1.0 / (127.0 * 127.0)),
    };
}
