using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Testing;

/// <summary>Comparisons of tensors that say how far off they are, and which tolerance held them.</summary>
/// <remarks>
/// A recorded value in half precision has an <see cref="IsaSpread"/>, which widens the tolerance on levels other than the recorded one. Where a value
/// passes only because of it, the test's output says so.
/// </remarks>
public static class TensorAssert
{
    /// <summary>|got - expected| &lt;= atol + rtol * |expected| + 2 * spread for every element, same shape; NaN equals NaN.</summary>
    public static void Close(Tensor expected, Tensor got, double atol, double rtol, string what, IsaSpread spread = default)
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
        long count = Outside(excess, 0);
        if (count == 0) return;
        long outside = spread.MaxAbs > 0 ? Outside(excess, spread.OfLargest) : count;
        long worst = nan_to_num(excess, double.MaxValue).flatten().argmax().ToInt64();
        string text = $"of {e.numel()} elements are outside atol {atol:G3}, rtol {rtol:G3}{(spread == default ? "" : $" {spread}")}; the worst at flat index {worst}: "
            + $"expected {e.flatten()[worst].ToDouble():G9}, got {g.flatten()[worst].ToDouble():G9}.";
        if (outside > 0) Assert.Fail($"{what}: {outside} {text}");
        Note($"{what}: passes by isa_spread. Without it {count} {text}");
    }

    /// <summary>The same for one number.</summary>
    public static void Close(double expected, double got, double atol, double rtol, string what, IsaSpread spread = default)
    {
        if (double.IsNaN(expected) && double.IsNaN(got)) return;
        AtMost(Math.Abs(got - expected), atol + rtol * Math.Abs(expected), spread.OfLargest, spread, $"{what}: expected {expected:R}, got {got:R}; the difference");
    }

    /// <summary>Every element is equal (dtype and shape too).</summary>
    public static void Equal(Tensor expected, Tensor got, string what)
    {
        Assert.True(expected.dtype == got.dtype, $"{what}: expected dtype {expected.dtype}, got {got.dtype}.");
        Close(expected, got, 0, 0, what);
    }

    /// <summary>rms(got - expected) &lt;= limit * rms(expected) + 2 * spread.</summary>
    public static void RelativeRms(Tensor expected, Tensor got, double limit, string what, IsaSpread spread = default)
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        Rms(expected, got, limit * expected.cpu().to(ScalarType.Float64).square().mean().sqrt().ToDouble(), what, spread);
    }

    /// <summary>rms(got - expected) &lt;= limit + 2 * spread.</summary>
    public static void Rms(Tensor expected, Tensor got, double limit, string what, IsaSpread spread = default)
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var difference = got.cpu().to(ScalarType.Float64) - expected.cpu().to(ScalarType.Float64);
        AtMost(difference.square().mean().sqrt().ToDouble(), limit, spread.OfRms, spread, $"{what}: rms of the difference");
    }

    /// <summary>value &lt;= limit + widening, where the widening comes from a spread.</summary>
    public static void AtMost(double value, double limit, double widening, IsaSpread spread, string what)
    {
        Assert.True(value <= limit + widening, $"{what} {value:G4} is above {limit:G4}, {spread}.");
        if (value > limit) Note($"{what} {value:G4} passes by isa_spread: above {limit:G4}, {spread}.");
    }

    private static long Outside(Tensor excess, double widening) => excess.le(widening).logical_not().sum().ToInt64();

    private static void Note(string text) => TestContext.Current.TestOutputHelper?.WriteLine(text);
}
