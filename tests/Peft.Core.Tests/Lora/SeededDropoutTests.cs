using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

public sealed class SeededDropoutTests
{
    [Theory]
    [InlineData(ScalarType.Float32, 0.05), InlineData(ScalarType.BFloat16, 0.3), InlineData(ScalarType.Float64, 0.3)]
    public void Elements_are_dropped_with_the_probability_and_the_rest_scaled(ScalarType dtype, double probability)
    {
        using var scope = NewDisposeScope();
        manual_seed(5);
        var x = ones(301, 217).to(dtype);
        var y = new SeededDropout().Draw("q_proj", x, probability).Apply(x).to(ScalarType.Float64);
        double share = y.eq(0).to(ScalarType.Float64).mean().ToDouble();
        Assert.InRange(share, probability - 0.01, probability + 0.01);
        var kept = y.masked_select(y.ne(0));
        TensorAssert.Close(full_like(kept, 1 / (1 - probability)), kept, dtype == ScalarType.BFloat16 ? 4e-3 : 1e-6, 0, "kept elements");
    }

    [Fact]
    public void A_mask_is_the_same_each_time_and_in_each_dtype_of_the_kernel()
    {
        using var scope = NewDisposeScope();
        var x = randn(13, 77);
        var mask = new SeededDropout().Draw("q_proj", x, 0.25);
        TensorAssert.Equal(mask.Apply(x), mask.Apply(x), "second application");
        TensorAssert.Equal(mask.Apply(x).eq(0), mask.Apply(x.to(ScalarType.BFloat16)).eq(0), "pattern in bfloat16");
        var target = randn(13, 77);
        var expected = target + mask.Apply(x);
        mask.AddTo(x, target);
        TensorAssert.Close(expected, target, 1e-6, 0, "added");
    }

    [Theory, InlineData(ScalarType.Float32), InlineData(ScalarType.BFloat16), Trait("Level", "any")]
    public void The_mask_is_the_written_out_one_at_each_width(ScalarType dtype)
    {
        using var scope = NewDisposeScope();
        const ulong Seed = 0xfedcba9876543210;
        const int Count = 2 * 4096 + 32 + 13;                   // several ranges, and an end that fills no vector
        var x = randn(Count).to(dtype);
        x[5] = float.NaN;
        static ulong Mixed(ulong counter)
        {
            ulong z = Seed + counter * 0x9E3779B97F4A7C15;
            z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
            z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
            return z ^ (z >> 31);
        }
        var kept = tensor(Enumerable.Range(0, Count).Select(i => (ushort)(Mixed((ulong)i / 4) >> (16 * (i % 4))) >= (int)(0.25 * 65536)).ToArray());
        var expected = where(kept, x.to(ScalarType.Float32) * (float)(1 / 0.75), zeros(Count));
        foreach (var width in Enum.GetValues<VectorWidth>())
        {
            using var forced = VectorLoops.ForceWidth(width);
            var mask = SeededDropout.MaskOf(Seed, 0.25);
            TensorAssert.Equal(expected.to(dtype), mask.Apply(x), $"{width}");
            var target = ones(Count).to(dtype);
            mask.AddTo(x, target);
            TensorAssert.Equal((expected + 1).to(dtype), target, $"{width}, added");
        }
    }

    [Fact]
    public void The_mask_does_not_depend_on_the_number_of_threads_and_follows_the_seed()
    {
        using var scope = NewDisposeScope();
        var x = randn(111, 999);
        manual_seed(8);
        var mask = new SeededDropout().Draw("q_proj", x, 0.1);
        var other = new SeededDropout().Draw("q_proj", x, 0.1);
        int threads = get_num_threads();
        var several = mask.Apply(x);
        set_num_threads(1);
        var one = mask.Apply(x);
        set_num_threads(threads);
        TensorAssert.Equal(one, several, "one thread");
        Assert.False(one.eq(other.Apply(x)).all().ToBoolean());
        manual_seed(8);
        TensorAssert.Equal(one, new SeededDropout().Draw("q_proj", x, 0.1).Apply(x), "same global seed");
    }

    [Fact]
    public void A_dropped_infinity_is_zero()
    {
        using var scope = NewDisposeScope();
        var x = full([4096], float.PositiveInfinity);
        var y = new SeededDropout().Draw("q_proj", x, 0.5).Apply(x);
        Assert.False(y.isnan().any().ToBoolean());
        Assert.True(y.eq(0).any().ToBoolean());
    }
}
