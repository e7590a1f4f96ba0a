using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

public sealed class DenseFrozenLinearTests
{
    [Fact]
    public void Forward_and_input_gradient_equal_an_ordinary_linear()
    {
        using var scope = NewDisposeScope();
        using var engine = ProductChoice.Force(ProductEngine.Libtorch);      // its operator, its bits
        manual_seed(3);
        var weight = randn(5, 7);
        var bias = randn(5);
        using var layer = new DenseFrozenLinear(weight.clone(), bias.clone());
        var x = randn(2, 3, 7, requires_grad: true);
        var twin = x.detach().clone().requires_grad_(true);
        var y = layer.call(x);
        var expected = nn.functional.linear(twin, weight, bias);
        TensorAssert.Equal(expected, y, "output");
        var gradient = randn(2, 3, 5);
        y.backward(new[] { gradient });
        expected.backward(new[] { gradient });
        TensorAssert.Close(twin.grad!, x.grad!, 1e-6, 0, "input gradient");
        Assert.Null(layer.Weight.grad);
    }

    [Theory]
    [InlineData(1, 7, 5), InlineData(2, 129, 33), InlineData(3, 64, 40), InlineData(4, 200, 65)]
    public void A_few_bfloat16_rows_equal_the_float32_product_rounded_once(long rows, long width, long outputs)
    {
        using var scope = NewDisposeScope();
        manual_seed(4);
        var (x, w, b) = (randn(rows, 1, width).bfloat16(), randn(outputs, width).bfloat16(), randn(outputs).bfloat16());
        using var layer = new DenseFrozenLinear(w.clone(), b.clone());
        var expected = nn.functional.linear(x.to(ScalarType.Float32), w.to(ScalarType.Float32), b.to(ScalarType.Float32));
        using var noGrad = no_grad();
        var got = layer.call(x);
        Assert.Equal(ScalarType.BFloat16, got.dtype);
        TensorAssert.Close(expected, got, 1e-5, 1.0 / 256, "output");
    }

    [Fact]
    public void A_trained_bias_gets_its_gradient()
    {
        using var scope = NewDisposeScope();
        using var layer = new DenseFrozenLinear(randn(5, 7), randn(5));
        layer.BiasTensor!.requires_grad_(true);
        layer.call(randn(4, 7)).sum().backward();
        TensorAssert.Equal(full([5], 4f), layer.BiasTensor!.grad!, "bias gradient");
    }

    [Fact]
    public void Overwriting_with_another_shape_names_both_shapes()
    {
        using var scope = NewDisposeScope();
        using var layer = new DenseFrozenLinear(randn(2, 3), name: "q_proj");
        var e = Assert.Throws<ShapeMismatchException>(() => layer.OverwriteWeight(randn(1, 3)));
        Assert.Equal("q_proj: expected shape (2, 3), got (1, 3). Check that the tensor belongs to this layer of this model.", e.Message);
    }

    [Fact]
    public void Forward_and_backward_leave_no_tensor_behind()
    {
        using var layer = new DenseFrozenLinear(randn(6, 7), randn(6));
        LeakGuard.AssertFlat(20, () =>
        {
            using var scope = NewDisposeScope();
            var x = randn(3, 7, requires_grad: true);
            layer.call(x).sum().backward();
        });
    }
}
