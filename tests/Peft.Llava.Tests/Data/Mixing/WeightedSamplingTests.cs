using Xunit;

namespace Peft.Llava.Tests.Data;

public sealed class WeightedSamplingTests
{
    [Theory]
    // 2:1:1 over 5, 7 and 9: five of the first allow 2.5 of each other one; nine of the last ask for eighteen of the first.
    [InlineData(MixtureStopping.FirstExhausted, null, 10, new[] { 5, 3, 2 })]
    [InlineData(MixtureStopping.AllExhausted, null, 36, new[] { 18, 9, 9 })]
    [InlineData(MixtureStopping.FirstExhausted, 7, 7, new[] { 3, 2, 2 })]
    [InlineData(MixtureStopping.AllExhausted, 5, 5, new[] { 3, 1, 1 })]
    public void Every_epoch_has_the_weights_shares(MixtureStopping stopping, int? length, int expected, int[] quotas)
    {
        var sampling = new WeightedSampling(["a", "b", "c"], [5, 7, 9], [1, 0.5, 0.5], stopping, length);
        Assert.Equal(expected, sampling.SamplesPerEpoch);
        Assert.Equal(quotas, sampling.SamplesPerSource);
        Assert.Equal([0, 5, 12], sampling.Offsets);
        for (int epoch = 0; epoch < 4; epoch++)
        {
            int[] drawn = sampling.Draw(epoch, 3);
            Assert.Equal(quotas, (int[])[drawn.Count(i => i < 5), drawn.Count(i => i is >= 5 and < 12), drawn.Count(i => i is >= 12 and < 21)]);
        }
        Assert.Equal($"{quotas[0]} of 5 of a, {quotas[1]} of 7 of b, {quotas[2]} of 9 of c", sampling.Rule);
    }

    [Theory]
    [InlineData(0.1, 0.9, 10, 90, 100)]
    [InlineData(0.3, 0.7, 3, 7, 10)]
    [InlineData(1.0 / 3, 2.0 / 3, 100, 200, 300)]
    public void Weights_in_the_ratio_of_the_sizes_take_every_sample_once(double a, double b, int first, int second, int all)
    {
        foreach (var stopping in Enum.GetValues<MixtureStopping>())
        {
            var sampling = new WeightedSampling(["a", "b"], [first, second], [a, b], stopping);
            Assert.Equal(all, sampling.SamplesPerEpoch);
            Assert.Equal(Enumerable.Range(0, all), sampling.Draw(2, 9).Order());
        }
    }

    [Fact]
    public void No_sample_comes_again_before_all_of_its_source_came()
    {
        var sampling = new WeightedSampling(["a", "b"], [7, 3], [3, 2], MixtureStopping.AllExhausted, 10);
        var seen = new List<int>();
        for (int epoch = 0; epoch < 7; epoch++) seen.AddRange(sampling.Draw(epoch, 5));
        foreach (var (from, size) in new[] { (0, 7), (7, 3) })
        {
            var own = seen.Where(i => i >= from && i < from + size).ToList();
            // A pass may lie in two epochs, each of which is drawn interleaved: counts after whole passes are equal for all.
            for (int pass = 1; pass * size <= own.Count; pass++)
                Assert.All(Enumerable.Range(from, size), i => Assert.Equal(pass, own.Take(pass * size).Count(o => o == i)));
        }
    }

    [Fact]
    public void An_epoch_follows_from_seed_and_number_alone()
    {
        var sampling = new WeightedSampling(["a", "b"], [40, 30], [1, 1]);
        int[] third = sampling.Draw(3, 11);
        sampling.Draw(0, 11);
        Assert.Equal(third, new WeightedSampling(["x", "y"], [40, 30], [2, 2]).Draw(3, 11));
        Assert.NotEqual(third, sampling.Draw(3, 12));
        Assert.NotEqual(sampling.Draw(1, 11), sampling.Draw(2, 11));
        Assert.StartsWith("epoch ('-1') must be a non-negative value.", Assert.Throws<ArgumentOutOfRangeException>(() => sampling.Draw(-1, 11)).Message);
    }

    [Fact]
    public void Sources_lie_spread_evenly()
    {
        int[] drawn = new WeightedSampling(["a", "b"], [30, 10], [3, 1]).Draw(0, 1);
        for (int i = 0; i + 4 <= drawn.Length; i += 4) Assert.Single(drawn[i..(i + 4)], d => d >= 30);
    }

    [Fact]
    public void What_gives_no_epoch_is_refused()
    {
        Refused("The source 'b' has no samples. Leave it out, or check its file.", [5, 0], [1, 1]);
        Refused("The weight 0 of the source 'a' is not a positive number. Leave the source out, or give it one.", [5, 4], [0, 1]);
        Refused("The weight NaN of the source 'b' is not a positive number.", [5, 4], [1, double.NaN]);
        Refused("An epoch of -2 samples is asked for. Ask for at least one per source.", [5, 4], [1, 1], -2);
        Refused("The source 'b' would have no sample in an epoch of 5. Raise its weight, make the epoch longer, or leave it out.", [5, 40], [1, 1e-6]);
        var e = Assert.Throws<TrainingDataException>(() => new WeightedSampling(["a", "b"], [5, 40], [1, 1e-12], MixtureStopping.AllExhausted));
        Assert.Contains("samples. Give the number of samples per epoch, or weights nearer to the sizes.", e.Message);
        Assert.Contains("There are 1 names, 2 sizes and 1 weights; give one of each per source, at least one.",
            Assert.Throws<ArgumentException>(() => new WeightedSampling(["a"], [1, 2], [1])).Message);
    }

    private static void Refused(string text, int[] sizes, double[] weights, int? length = null)
        => Assert.Contains(text, Assert.Throws<TrainingDataException>(() => new WeightedSampling(["a", "b"], sizes, weights, samplesPerEpoch: length)).Message);
}
