using Peft.Core;
using TorchSharp.Modules;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Training;

public sealed class GradientScalerTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("scaler-").FullName;

    private string File1 => Path.Combine(_folder, "scaler.pt");

    // aten's _amp_update_scale_, written out: the scale is a float32, factors are doubles, and the product is rounded once.
    private static (float Scale, int Tracker) Formula(float scale, int tracker, bool overflow, double growth, double backoff, int interval)
    {
        if (overflow) return ((float)(scale * backoff), 0);
        if (tracker + 1 != interval) return (scale, tracker + 1);
        float grown = (float)(scale * growth);
        return (float.IsFinite(grown) ? grown : scale, 0);
    }

    [Fact]
    public void The_scale_follows_the_formula()
    {
        // Factors that are no powers of two, so that rounding shows.
        var options = new GradientScalerOptions { InitialScale = 3e37, GrowthFactor = 1.7, BackoffFactor = 0.3, GrowthInterval = 3, MinimumScale = 0 };
        var scaler = new GradientScaler(options);
        var random = new TorchRandom(5);
        var (scale, tracker) = (3e37f, 0);
        var seen = new HashSet<float>();
        for (int step = 0; step < 400; step++)
        {
            bool overflow = random.NextUInt32() % 5 == 0;
            (scale, tracker) = Formula(scale, tracker, overflow, 1.7, 0.3, 3);
            scaler.Update(overflow);
            Assert.Equal((scale, tracker), ((float)scaler.Scale, scaler.GrowthTracker));
            seen.Add(scale);
        }
        Assert.True(seen.Count > 50, $"{seen.Count} scales");
    }

    [Fact]
    public void The_defaults_are_PyTorchs_and_the_scale_never_becomes_infinite()
    {
        var scaler = new GradientScaler();
        Assert.Equal(65536, scaler.Scale);
        for (int i = 0; i < 1999; i++) scaler.Update(overflow: false);
        Assert.Equal((65536, 1999), (scaler.Scale, scaler.GrowthTracker));
        scaler.Update(overflow: false);
        Assert.Equal((131072, 0), (scaler.Scale, scaler.GrowthTracker));
        scaler.Update(overflow: true);
        Assert.Equal(65536, scaler.Scale);

        var top = new GradientScaler(new GradientScalerOptions { InitialScale = 3e38, GrowthInterval = 1 });
        top.Update(overflow: false);
        Assert.Equal((float)3e38, top.Scale);
        var low = new GradientScaler(new GradientScalerOptions { InitialScale = 4, MinimumScale = 1.5 });
        Assert.True(low.CanFall);
        low.Update(overflow: true);
        Assert.False(low.CanFall);
    }

    [Fact]
    public void Gradients_are_divided_in_place_and_absent_ones_stay_absent()
    {
        using var with = new Parameter(tensor([1.5f, -2]));
        using var without = new Parameter(tensor([1f]));
        with.grad = tensor([3f, 65536 * 3]);
        new GradientScaler().Unscale([new NamedParameter("a", with), new NamedParameter("b", without)]);
        using var gradient = with.grad;
        Assert.Equal([3 / 65536f, 3f], gradient!.data<float>().ToArray());
        Assert.Null(without.grad);
    }

    [Fact]
    public void The_state_is_that_of_torch_save_and_comes_back_to_the_bit()
    {
        var scaler = new GradientScaler(new GradientScalerOptions { InitialScale = 1e5, GrowthFactor = 1.3, BackoffFactor = 0.7, GrowthInterval = 11 });
        foreach (bool overflow in new[] { true, true, false, false, false }) scaler.Update(overflow);
        scaler.Save(File1);
        var state = Assert.IsType<PickleDictionary>(PickleFile.ReadObject(File1));
        Assert.Equal(["scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker"], state.Keys.Select(k => (string)k));
        Assert.Equal([scaler.Scale, 1.3, 0.7, 11L, 3L], state.Values);

        var other = new GradientScaler();
        other.Load(File1);
        for (int i = 0; i < 30; i++)
        {
            Assert.Equal((scaler.Scale, scaler.GrowthTracker), (other.Scale, other.GrowthTracker));
            scaler.Update(i % 13 == 12);
            other.Update(i % 13 == 12);
        }
    }

    [Fact]
    public void A_state_of_another_kind_is_refused_and_changes_nothing()
    {
        PickleWriter.WriteObject(File1, new PickleDictionary([new("scale", -2.0), new("growth_factor", 1L), new("backoff_factor", "x"), new("_growth_tracker", 1.5)]));
        var scaler = new GradientScaler();
        var e = Assert.Throws<StateMismatchException>(() => scaler.Load(File1));
        Assert.Equal(["'scale' is -2, which it cannot be", "'growth_factor' is 1, which it cannot be", "'backoff_factor' is missing or not a number",
            "'growth_interval' is missing or not a number", "'_growth_tracker' is 1.5, which it cannot be"], e.Problems);
        Assert.StartsWith($"The gradient scaler's state {File1} does not fit this training (5 problems): ", e.Message, StringComparison.Ordinal);
        Assert.Equal((65536, 0), (scaler.Scale, scaler.GrowthTracker));
    }

    [Fact]
    public void Values_that_cannot_be_are_named_together()
    {
        var bad = new GradientScalerOptions { InitialScale = 0, GrowthFactor = 1, BackoffFactor = 1, GrowthInterval = 0, MinimumScale = 3 };
        string[] problems = ["InitialScale 0 is not a positive float32 number", "GrowthFactor 1 is not above 1", "BackoffFactor 1 is not between 0 and 1",
            "GrowthInterval 0 is not positive", "MinimumScale 3 is not between 0 and InitialScale 0"];
        Assert.Equal(problems, Assert.Throws<TrainingOptionsException>(() => new GradientScaler(bad)).Problems);
        Assert.Equal(problems.Select(p => "LossScaling." + p), new TrainingOptions { OutputDirectory = "x", LossScaling = bad }.Problems());
    }

    public void Dispose() => Directory.Delete(_folder, recursive: true);
}
