using System.Runtime.Intrinsics;
using Xunit;

namespace Peft.Core.Tests;

public sealed class VectorMathTests
{
    [Fact]
    public void Exp_is_within_two_units_in_the_last_place()
    {
        for (float x = -87f; x < 88f; x += 0.00937f)
        {
            float expected = (float)Math.Exp(x);
            float got = VectorMath.Exp(Vector512.Create(x))[7];
            int distance = Math.Abs(BitConverter.SingleToInt32Bits(expected) - BitConverter.SingleToInt32Bits(got));
            Assert.True(distance <= 2, $"exp({x}): expected {expected:R}, got {got:R}");
        }
    }

    [Fact]
    public void Max_finds_the_largest_lane_wherever_it_is_and_keeps_NaN()
    {
        for (int lane = 0; lane < 16; lane++)
        {
            Assert.Equal(-2.5f, VectorMath.Max(Vector512.Create(-7f).WithElement(lane, -2.5f)));
            Assert.True(float.IsNaN(VectorMath.Max(Vector512.Create(-7f).WithElement(lane, float.NaN))));
        }
    }

    [Fact]
    public void Exp_keeps_NaN_and_clamps_the_ends()
    {
        Assert.True(float.IsNaN(VectorMath.Exp(Vector512.Create(float.NaN))[0]));
        Assert.InRange(VectorMath.Exp(Vector512.Create(float.NegativeInfinity))[0], 0, 1.2e-38f);
        Assert.True(float.IsFinite(VectorMath.Exp(Vector512.Create(1000f))[0]));
    }
}
