using Xunit;

namespace Peft.Core.Tests;

/// <summary>Each operation of the vectors against the same on one number, at each width.</summary>
[Trait("Level", "any")]
public sealed unsafe class FloatsTests
{
    private static readonly float[] Left =
        [1.5f, -2.25f, 0f, -0f, 3e38f, 1e-40f, float.NaN, float.PositiveInfinity, float.NegativeInfinity, 0.1f, 7.7f, -1e-3f, 65537f, 0.3333333f, 2.7f, -126f];
    private static readonly float[] Right =
        [0.7f, 2.25f, -0f, 5f, 3e38f, 1e-40f, 1f, float.NaN, 4f, -0.2f, 7.7f, 1e3f, 3f, float.NegativeInfinity, -2.7f, 127f];

    public static TheoryData<VectorWidth> Widths => [.. Enum.GetValues<VectorWidth>()];

    [Theory, MemberData(nameof(Widths))]
    public void Arithmetic_is_that_of_single_numbers(VectorWidth width)
    {
        float[][] got = Run(width);
        for (int i = 0; i < 16; i++)
        {
            float a = Left[i], b = Right[i];
            float[] expected =
            [
                a + b, a - b, -a, a * b, a * 1.7f, a / b, a / 1.7f, MathF.Sqrt(a), MathF.Floor(a), MathF.Max(a, b),
                MathF.FusedMultiplyAdd(a, b, 0.5f), i < 5 ? a : b, BFloat16(a), (i % 3 == 0 ? a : 0f),
            ];
            for (int k = 0; k < expected.Length; k++)
                Assert.True(expected[k].Equals(got[k][i]), $"operation {k} of {a:R} and {b:R}: expected {expected[k]:R}, got {got[k][i]:R}");
            Assert.Equal(BFloat16(a), got[14][i]);                 // the quick rounding: equal but for a NaN's bits
            Assert.Equal(a > b ? a : b, got[15][i]);               // the second one where either is NaN
            Assert.Equal(a < b ? a : b, got[16][i]);
            Assert.Equal(MathF.ScaleB(1, 3 * i - 20), got[17][i]);
        }
    }

    [Theory, MemberData(nameof(Widths))]
    public void A_sum_adds_halves_and_the_largest_lane_is_found_wherever_it_is(VectorWidth width)
    {
        using var forced = VectorLoops.ForceWidth(width);
        float[] lanes = [.. Left.Select(v => float.IsFinite(v) && MathF.Abs(v) < 1e6f ? v : 0.25f)];
        float Halves(int first, int count) => count == 1 ? lanes[first] : Halves(first, count / 2) + Halves(first + count / 2, count / 2);
        Assert.Equal(Halves(0, 16), Reduce(lanes).Sum);
        for (int lane = 0; lane < 16; lane++)
        {
            float[] one = [.. Enumerable.Repeat(-7f, 16)];
            one[lane] = -2.5f;
            Assert.Equal(-2.5f, Reduce(one).Largest);
            one[lane] = float.NaN;
            Assert.True(float.IsNaN(Reduce(one).Largest));
        }
    }

    [Theory, MemberData(nameof(Widths))]
    public void BFloat16_is_stored_rounded_to_even_and_NaN_as_torch_has_it(VectorWidth width)
    {
        using var forced = VectorLoops.ForceWidth(width);
        uint[] bits =
        [
            0x3f808000, 0x3f818000, 0x3f808001, 0x3f807fff, 0xbf818000, 0x7f7fffff, 0x7f800000, 0xff800000,
            0x7fffffff, 0xffc00000, 0x00008000, 0x00018000, 0x80000000, 0x7f7f7fff, 0x3f800000, 0xffffffff,
        ];
        ushort[] expected = [.. bits.Select(b => { ushort one; BFloat16Element.Set(&one, 0, BitConverter.UInt32BitsToSingle(b)); return one; })];
        float[] values = [.. bits.Select(BitConverter.UInt32BitsToSingle)];
        ushort[] stored = new ushort[16], again = new ushort[16], upper = new ushort[16];
        fixed (float* v = values) fixed (ushort* s = stored, a = again, u = upper) VectorLoops.Run(new StoreLoop(v, s, a, u), 16, 16);
        Assert.Equal(expected, stored);
        Assert.Equal(expected, again);
        Assert.Equal(bits.Select(b => (ushort)(b >> 16)), upper);
    }

    [Fact]
    public void The_width_follows_the_level_of_the_processor_unless_it_is_forced()
    {
        foreach (var level in CpuLevels.Supported)
        {
            using var forced = CpuLevels.Force(level);
            Assert.Equal(level switch { CpuLevel.Vector128 => VectorWidth.Bits128, CpuLevel.Avx2 => VectorWidth.Bits256, _ => VectorWidth.Bits512 }, VectorLoops.Width);
            using (VectorLoops.ForceWidth(VectorWidth.Bits512)) Assert.Equal(VectorWidth.Bits512, VectorLoops.Width);
        }
    }

    private static float BFloat16(float value)
    {
        ushort bits;
        BFloat16Element.Set(&bits, 0, value);
        return BFloat16Element.Get(&bits, 0);
    }

    private static float[][] Run(VectorWidth width)
    {
        using var forced = VectorLoops.ForceWidth(width);
        float[] results = new float[18 * 16];
        fixed (float* a = Left, b = Right, r = results) VectorLoops.Run(new ArithmeticLoop(a, b, r), 16, 16);
        return [.. results.Chunk(16)];
    }

    private static (float Sum, float Largest) Reduce(float[] lanes)
    {
        float[] result = new float[2];
        fixed (float* v = lanes, r = result) VectorLoops.Run(new ReduceLoop(v, r), 16, 16);
        return (result[0], result[1]);
    }

    private readonly struct ArithmeticLoop(float* left, float* right, float* results) : IVectorLoop
    {
        public void Run<TVector>(long begin, long end)
            where TVector : struct, IFloats<TVector>
        {
            Assert.Equal(VectorLoops.Lanes, TVector.Count);
            TVector a = TVector.Load(left), b = TVector.Load(right);
            short* words = stackalloc short[16];
            float* exponents = stackalloc float[16];
            for (int i = 0; i < 16; i++) (words[i], exponents[i]) = ((short)(i % 3 == 0 ? -1 : 0), 3 * i - 20);
            TVector[] all =
            [
                a + b, a - b, -a, a * b, a * 1.7f, a / b, a / 1.7f, TVector.Sqrt(a), TVector.Floor(a), TVector.Max(a, b),
                TVector.FusedMultiplyAdd(a, b, TVector.All(0.5f)), TVector.Select(TVector.FirstLanes(5), a, b), TVector.RoundToBFloat16(a),
                TVector.And(a, TVector.LoadMask(words)), TVector.RoundToBFloat16Plain(a), TVector.MaxNative(a, b), TVector.MinNative(a, b),
                TVector.PowerOfTwo(TVector.Load(exponents)),
            ];
            for (int i = 0; i < all.Length; i++) TVector.Store(results + 16 * i, all[i]);
        }
    }

    private readonly struct ReduceLoop(float* values, float* result) : IVectorLoop
    {
        public void Run<TVector>(long begin, long end)
            where TVector : struct, IFloats<TVector>
        {
            result[0] = TVector.Sum(TVector.Load(values));
            result[1] = TVector.Largest(TVector.Load(values));
        }
    }

    private readonly struct StoreLoop(float* values, ushort* stored, ushort* again, ushort* upper) : IVectorLoop
    {
        public void Run<TVector>(long begin, long end)
            where TVector : struct, IFloats<TVector>
        {
            BFloat16Element.Store(stored, 0, TVector.Load(values));
            BFloat16Element.StoreRounded(again, 0, BFloat16Element.Load<TVector>(stored, 0));
            TVector.StoreUpper(upper, TVector.Load(values));
        }
    }
}
