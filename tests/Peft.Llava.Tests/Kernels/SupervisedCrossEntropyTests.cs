using Peft.Core;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests;

[Trait("Level", "any")]
public sealed class SupervisedCrossEntropyTests
{
    [Theory]
    [InlineData(ScalarType.Float32, 7, 13, 61, 3e-6), InlineData(ScalarType.Float32, 1025, 8, 130, 3e-6), InlineData(ScalarType.BFloat16, 600, 24, 333, 1e-2)]
    public void Loss_and_gradient_equal_logits_and_cross_entropy(ScalarType dtype, long rows, long width, long vocabulary, double relative)
    {
        using var scope = NewDisposeScope();
        manual_seed(31);
        using var head = new DenseFrozenLinear(randn(vocabulary, width).to(dtype), randn(vocabulary).to(dtype));
        var targets = randint(0, vocabulary, [rows], ScalarType.Int64);
        ElementwiseKernelTests.Compare([randn(rows, width).to(dtype)],
            t => SupervisedCrossEntropy.Sum(t[0], head, targets),
            t => nn.functional.cross_entropy(head.call(t[0]).to(ScalarType.Float32), targets, reduction: nn.Reduction.Sum),
            full([], 0.37f), relative);
    }

    [Fact]
    public void A_label_outside_the_vocabulary_is_refused_with_both_numbers()
    {
        using var scope = NewDisposeScope();
        using var head = new DenseFrozenLinear(randn(5, 3));
        var e = Assert.Throws<ArgumentOutOfRangeException>(() => SupervisedCrossEntropy.Sum(randn(2, 3), head, tensor(new long[] { 1, 5 })));
        Assert.Contains("Labels run from 1 to 5, but the head has 5 outputs. Check that the tokenizer belongs to this model", e.Message);
    }

    [Fact]
    public void No_tensor_outlives_forward_and_backward()
    {
        using var head = new DenseFrozenLinear(randn(20, 3));
        var targets = tensor(new long[] { 1, 19 });
        LeakGuard.AssertFlat(20, () =>
        {
            using var scope = NewDisposeScope();
            var x = randn(2, 3, requires_grad: true);
            SupervisedCrossEntropy.Sum(x, head, targets).backward();
        });
    }
}
