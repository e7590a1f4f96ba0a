using System.Text.Json;
using Peft.Llava;
using Peft.Testing;
using Xunit;

namespace Peft.Llava.Tests.Training;

public sealed class ScheduleGoldenTests
{
    public static IEnumerable<TheoryDataRow<string>> Cases => Goldens.Rows("training", c => c.Json.TryGetProperty("series_file", out _));

    [Theory, MemberData(nameof(Cases)), Trait(Goldens.Trait, "training")]
    public void Rates_equal_transformers(string folder)
    {
        var golden = new GoldenCase(folder);
        double[] rates = [.. golden.Json.GetProperty("settings").GetProperty("group_lrs").EnumerateArray().Select(e => e.GetDouble())];
        double defaultRate = golden.Json.GetProperty("settings").GetProperty("defaults_lr").GetDouble();
        double atol = golden.Json.GetProperty("tolerance").GetProperty("atol").GetDouble();
        double rtol = golden.Json.GetProperty("tolerance").GetProperty("rtol").GetDouble();

        foreach (var w in golden.Json.GetProperty("warmup_steps_from_ratio").EnumerateArray())
            Assert.Equal(w.GetProperty("warmup_steps").GetInt32(),
                LearningRateSchedule.WarmupFromRatio(0, w.GetProperty("warmup_ratio").GetDouble(), w.GetProperty("max_steps").GetInt32()));

        using var series = JsonDocument.Parse(File.ReadAllBytes(golden.PathOf(golden.Json.GetProperty("series_file").GetString()!)));
        foreach (var row in series.RootElement.EnumerateArray())
        {
            string type = row.GetProperty("type").GetString()!;
            var schedule = new LearningRateSchedule(
                LearningRateSchedule.ParseKind(type), row.GetProperty("num_warmup_steps").GetInt32(), row.GetProperty("num_training_steps").GetInt32(),
                defaultRate, type == "cosine_with_restarts" ? row.GetProperty("num_cycles").GetInt32() : null);
            var lr = row.GetProperty("lr");
            if (lr.GetArrayLength() == 0) lr = row.GetProperty("lr_newer_transformers");     // the recorded peer divides by zero
            int step = 0;
            foreach (var at in lr.EnumerateArray())
            {
                for (int g = 0; g < rates.Length; g++)
                {
                    double expected = at[g].GetDouble(), got = rates[g] * schedule.Factor(step);
                    Assert.True(Math.Abs(got - expected) <= atol + rtol * Math.Abs(expected), $"{row.GetProperty("type")} step {step} group {g}: expected {expected:R}, got {got:R}.");
                }
                step++;
            }
            Assert.True(step > 0);
        }
    }

    [Fact]
    public void Negative_counts_are_refused_together()
    {
        var e = Assert.Throws<TrainingOptionsException>(() => new LearningRateSchedule(ScheduleKind.Linear, -2, -5));
        Assert.Equal("The training settings have 2 problems:\n  - warm-up of -2 steps is negative.\n  - a total of -5 steps is negative.", e.Message);
    }

    [Fact]
    public void Polynomial_below_its_end_is_refused()
    {
        var e = Assert.Throws<TrainingOptionsException>(() => new LearningRateSchedule(ScheduleKind.Polynomial, 0, 5, 5e-8));
        Assert.Contains("ends at 1E-07 and cannot start at 5E-08: choose a larger learning rate", e.Message, StringComparison.Ordinal);
    }
}
