using Peft.Core;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests;

[Trait("Level", "any")]
public sealed class ElementwiseKernelTests
{
    [Theory]
    [InlineData(ScalarType.Float32, 3, 37, 2e-6), InlineData(ScalarType.Float32, 129, 64, 2e-6)]
    [InlineData(ScalarType.BFloat16, 3, 37, 1e-2), InlineData(ScalarType.BFloat16, 700, 172, 1e-2)]
    public void SwiGlu_equals_two_operators_and_their_gradients(ScalarType dtype, long rows, long width, double relative)
    {
        using var scope = NewDisposeScope();
        manual_seed(11);
        var (gate, up, g) = (randn(rows, width).mul(3).to(dtype), randn(rows, width).to(dtype), randn(rows, width).to(dtype));
        Compare([gate, up], t => SwiGlu.Apply(t[0], t[1]), t => SwiGlu.Reference(t[0], t[1]), g, relative);
    }

    [Theory]
    [InlineData(ScalarType.Float32, ScalarType.Float32, 3, 37, 3e-6), InlineData(ScalarType.BFloat16, ScalarType.BFloat16, 65, 48, 1.2e-2)]
    [InlineData(ScalarType.BFloat16, ScalarType.Float32, 5, 51, 1.2e-2), InlineData(ScalarType.Float32, ScalarType.BFloat16, 5, 51, 3e-6)]
    public void RmsNorm_equals_the_reference_and_its_gradient(ScalarType input, ScalarType weight, long rows, long width, double relative)
    {
        using var scope = NewDisposeScope();
        manual_seed(12);
        var w = randn(width).add(1.5).to(weight);
        var x = randn(rows, width).mul(2).to(input);
        var g = randn(rows, width).to(promote_types(input, weight));
        Compare([x], t => RmsNormalization.Apply(t[0], w, 1e-5), t => RmsNormalization.Reference(t[0], w, 1e-5), g, relative);
    }

    [Fact]
    public void A_trained_norm_weight_gets_its_gradient()
    {
        using var scope = NewDisposeScope();
        var w = randn(9).requires_grad_(true);
        RmsNormalization.Apply(randn(4, 9), w, 1e-6).sum().backward();
        Assert.NotNull(w.grad);
    }

    [Fact]
    public void No_tensor_outlives_forward_and_backward()
        => LeakGuard.AssertFlat(20, () =>
        {
            using var scope = NewDisposeScope();
            var x = randn(5, 33, requires_grad: true);
            SwiGlu.Apply(RmsNormalization.Apply(x, ones(33), 1e-5), x).sum().backward();
        });

    /// <summary>Outputs and input gradients, as a share of the largest value; the kernel's are the same bits at each width.</summary>
    internal static void Compare(Tensor[] inputs, Func<Tensor[], Tensor> kernel, Func<Tensor[], Tensor> reference, Tensor gradient, double relative)
    {
        var theirs = inputs.Select(t => t.clone().requires_grad_(true)).ToArray();
        var expected = reference(theirs);
        expected.backward(new[] { gradient });
        Tensor[]? first = null;
        foreach (var width in Enum.GetValues<VectorWidth>())
        {
            using var forced = VectorLoops.ForceWidth(width);
            var mine = inputs.Select(t => t.clone().requires_grad_(true)).ToArray();
            var got = kernel(mine);
            Assert.Equal(expected.dtype, got.dtype);
            Near(expected, got, relative, "output");
            got.backward(new[] { gradient });
            for (int i = 0; i < inputs.Length; i++) Near(theirs[i].grad!, mine[i].grad!, relative, $"gradient of input {i}");
            using (no_grad()) Near(expected, kernel(inputs), relative, "output without autograd");
            Tensor[] all = [got.detach(), .. mine.Select(t => t.grad!)];
            first ??= all;
            for (int i = 0; i < all.Length; i++) TensorAssert.Equal(first[i], all[i], $"{width} against {VectorWidth.Bits128}, {i}");
        }
    }

    internal static void Near(Tensor expected, Tensor got, double relative, string what)
        => TensorAssert.Close(expected, got, relative * expected.abs().max().to(ScalarType.Float64).ToDouble(), 0, what);
}
