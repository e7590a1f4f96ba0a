using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests;

[Trait("Level", "any")]
public sealed class RotaryAttentionTests
{
    [Theory]
    [InlineData(ScalarType.Float32, 4, 2, 10, new long[] { 1, 37, 300 }, 5e-6)]
    [InlineData(ScalarType.Float32, 3, 3, 32, new long[] { 257, 5 }, 5e-6)]
    [InlineData(ScalarType.BFloat16, 6, 2, 64, new long[] { 31, 290, 64 }, 2e-2)]
    [InlineData(ScalarType.BFloat16, 2, 2, 40, new long[] { 513 }, 2e-2)]
    public void Blocks_equal_the_operators_in_outputs_and_gradients(
        ScalarType dtype, long heads, long keyValueHeads, long width, long[] lengths, double relative)
    {
        using var scope = NewDisposeScope();
        manual_seed(21);
        long rows = lengths.Sum();
        var (q, k, v) = (randn(rows, heads * width).to(dtype), randn(rows, keyValueHeads * width).to(dtype), randn(rows, keyValueHeads * width).to(dtype));
        var (rope, layout) = Angles(lengths, width, dtype);
        ElementwiseKernelTests.Compare([q, k, v],
            t => RotaryAttention.Apply(t[0], t[1], t[2], rope, layout), t => RotaryAttention.Reference(t[0], t[1], t[2], rope, layout),
            randn(rows, heads * width).to(dtype), relative);
    }

    [Fact]
    public void A_row_beyond_the_stack_buffer_is_computed_all_the_same()
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        manual_seed(22);
        long[] lengths = [8229];
        var (q, k, v) = (randn(8229, 4), randn(8229, 4), randn(8229, 4));
        var (rope, layout) = Angles(lengths, 4);
        ElementwiseKernelTests.Near(RotaryAttention.Reference(q, k, v, rope, layout), RotaryAttention.Apply(q, k, v, rope, layout), 5e-6, "output");
    }

    [Fact]
    public void Large_scores_do_not_overflow()
    {
        using var scope = NewDisposeScope();
        var (rope, layout) = Angles([20], 8);
        var x = randn(20, 16).mul(300);
        Assert.True(RotaryAttention.Apply(x, x, x, rope, layout).isfinite().all().ToBoolean());
    }

    [Fact]
    public void No_tensor_outlives_forward_and_backward()
    {
        var (rope, layout) = Angles([7, 5], 6);
        LeakGuard.AssertFlat(20, () =>
        {
            using var scope = NewDisposeScope();
            var x = randn(12, 12, requires_grad: true);
            var kv = randn(12, 6, requires_grad: true);
            RotaryAttention.Apply(x, kv, kv, rope, layout).sum().backward();
        });
    }

    private static (RotaryTables Rope, SequenceLayout Layout) Angles(long[] lengths, long width, ScalarType dtype = ScalarType.Float32)
    {
        var layout = new SequenceLayout([.. lengths.Select(n => (int)n)], PaddingSide.Left);
        using var positions = layout.PositionIds();
        return (new RotaryEmbedding((int)width, 10000, 2048).Tables(positions, layout.PaddedLength, dtype), layout);
    }
}
