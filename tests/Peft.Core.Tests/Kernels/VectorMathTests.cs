using Xunit;

namespace Peft.Core.Tests;

[Trait("Level", "any")]
public sealed unsafe class VectorMathTests
{
    [Fact]
    public void Exp_is_within_two_units_in_the_last_place()
    {
        var x = Enumerable.Range(0, 18672).Select(i => -87f + i * 0.00937f).ToArray();
        foreach (float[] got in AtEachWidth(x))
        {
            for (int i = 0; i < x.Length; i++)
            {
                float expected = (float)Math.Exp(x[i]);
                int distance = Math.Abs(BitConverter.SingleToInt32Bits(expected) - BitConverter.SingleToInt32Bits(got[i]));
                Assert.True(distance <= 2, $"exp({x[i]}): expected {expected:R}, got {got[i]:R}");
            }
        }
    }

    [Fact]
    public void Exp_keeps_NaN_and_clamps_the_ends()
    {
        float[] x = [float.NaN, float.NegativeInfinity, 1000f, .. Enumerable.Repeat(1f, 13)];
        foreach (float[] got in AtEachWidth(x))
        {
            Assert.True(float.IsNaN(got[0]));
            Assert.InRange(got[1], 0, 1.2e-38f);
            Assert.True(float.IsFinite(got[2]));
        }
    }

    private static IEnumerable<float[]> AtEachWidth(float[] x)
    {
        foreach (var width in Enum.GetValues<VectorWidth>())
        {
            using var forced = VectorLoops.ForceWidth(width);
            float[] result = new float[x.Length];
            Fill(x, result);
            yield return result;
        }
    }

    private static void Fill(float[] x, float[] result)
    {
        fixed (float* source = x, target = result) VectorLoops.Run(new ExpLoop(source, target), x.Length, 16);
    }

    private readonly struct ExpLoop(float* source, float* target) : IVectorLoop
    {
        public void Run<TVector>(long begin, long end)
            where TVector : struct, IFloats<TVector>
        {
            for (long i = begin; i < end; i += TVector.Count) TVector.Store(target + i, VectorMath.Exp(TVector.Load(source + i)));
        }
    }
}
