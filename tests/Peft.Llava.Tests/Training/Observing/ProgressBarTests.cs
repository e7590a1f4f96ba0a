using Xunit;

namespace Peft.Llava.Tests.Training.Observing;

public sealed class ProgressBarTests
{
    private sealed class Clock : TimeProvider
    {
        public long Milliseconds { get; set; }

        public override long TimestampFrequency => 1000;

        public override long GetTimestamp() => Milliseconds;
    }

    [Fact]
    public void A_terminal_gets_one_line_that_fills_up_ten_times_a_second_at_most()
    {
        var (writer, clock) = (new StringWriter { NewLine = "\n" }, new Clock());
        var bar = new ProgressBar(writer, "card", live: true, clock);
        bar.OnStart(Reports.Start);
        foreach (var (step, at) in new[] { (1, 0), (2, 50), (3, 60) })
        {
            clock.Milliseconds = at;
            Assert.Equal(TrainingVerdict.Continue, bar.OnStep(Reports.Step(step, 3.0 / step)));
        }
        bar.OnEnd(Reports.Summary);
        // The second step came too soon; the last one is always drawn.
        Assert.Equal("card: 14 samples, 3 steps, 0 trained parameters\n"
            + "\rcard [########................]    1/3  loss 3.000  rate 0.0002  150 tokens/s  4 s left"
            + "\rcard [########################]    3/3  loss 1.833  rate 6.7E-05  151 tokens/s  0 s left\n"
            + "card: 3 steps in 6.2 s, mean loss 1.500\n", writer.ToString());
        Assert.Equal(6, bar.Seconds);
        Assert.Equal(151, bar.TokensPerSecond);
    }

    [Fact]
    public void An_evaluation_has_a_line_of_its_own_and_a_shorter_bar_leaves_no_rest()
    {
        var (writer, clock) = (new StringWriter { NewLine = "\n" }, new Clock());
        var bar = new ProgressBar(writer, "x", live: true, clock);
        bar.OnStep(Reports.Step(1, 12345));
        clock.Milliseconds = 200;
        bar.OnStep(Reports.Step(2, double.NaN) with { Evaluation = Reports.Evaluation });
        string[] parts = writer.ToString().Split('\r', '\n');
        Assert.Contains("x: step 2, eval_loss 1.375, eval_exact 0.5, the best so far", parts);
        Assert.Equal(new string(' ', parts[1].Length), parts[2]);
        Assert.EndsWith("loss 12345.000  rate 0.0001  151 tokens/s  2 s left", parts[^1].TrimEnd(), StringComparison.Ordinal);
    }

    [Fact, Trait("Fault", "use-3")]
    public void A_file_gets_a_line_for_every_tenth_of_the_steps()
    {
        var writer = new StringWriter { NewLine = "\n" };
        var bar = new ProgressBar(writer);
        for (int step = 1; step <= 40; step++) bar.OnStep(Reports.Step(step, 2) with { TotalSteps = 40 });
        bar.OnEnd(Reports.Summary with { Stopped = true });
        string[] lines = writer.ToString().TrimEnd().Split('\n');
        Assert.Equal(11, lines.Length);
        Assert.StartsWith("train    4/40  loss 2.000", lines[0], StringComparison.Ordinal);
        Assert.Equal("train: stopped after 3 steps in 6.2 s, mean loss 1.500", lines[^1]);
        Assert.DoesNotContain('\r', writer.ToString());
    }
}
