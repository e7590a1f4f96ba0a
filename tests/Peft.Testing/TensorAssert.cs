using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Testing;

/// <summary>Comparisons of tensors that say how far off they are.</summary>
public static class TensorAssert
{
    /// <summary>|got - expected| &lt;= atol + rtol * |expected| for every element, same shape; NaN equals NaN.</summary>
    public static void Close(Tensor expected, Tensor got, double atol, double rtol, string what)
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        Assert.True(expected.shape.SequenceEqual(got.shape),
            $"{what}: expected shape ({string.Join(", ", expected.shape)}), got ({string.Join(", ", got.shape)}).");
        if (expected.numel() == 0) return;
        var e = expected.cpu().to(ScalarType.Float64);
        var g = got.cpu().to(ScalarType.Float64);
        var bothNaN = e.isnan().logical_and(g.isnan());
        var excess = (g - e).abs() - (e.abs() * rtol + atol);
        excess = where(bothNaN, zeros_like(excess) - 1, where(e == g, zeros_like(excess) - 1, excess));
        var bad = excess.le(0).logical_not();
        long count = bad.sum().ToInt64();
        if (count == 0) return;
        long worst = nan_to_num(excess, double.MaxValue).flatten().argmax().ToInt64();
        Assert.Fail($"{what}: {count} of {e.numel()} elements are outside atol {atol:G3}, rtol {rtol:G3}; the worst at flat index {worst}: "
            + $"expected {e.flatten()[worst].ToDouble():G9}, got {g.flatten()[worst].ToDouble():G9}.");
    }

    /// <summary>Every element is equal (dtype and shape too).</summary>
    public static void Equal(Tensor expected, Tensor got, string what)
    {
        Assert.True(expected.dtype == got.dtype, $"{what}: expected dtype {expected.dtype}, got {got.dtype}.");
        Close(expected, got, 0, 0, what);
    }

    /// <summary>rms(got - expected) &lt;= limit * rms(expected).</summary>
    public static void RelativeRms(Tensor expected, Tensor got, double limit, string what)
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var e = expected.cpu().to(ScalarType.Float64);
        var g = got.cpu().to(ScalarType.Float64);
        double difference = (g - e).square().mean().sqrt().ToDouble();
        double size = e.square().mean().sqrt().ToDouble();
        Assert.True(difference <= limit * size, $"{what}: rms of the difference {difference:G4} is above {limit:G3} x {size:G4}.");
    }
}
