using System.Globalization;

namespace Peft.Llava;

/// <summary>
/// Writes a training's progress as text to where the caller says (standard output, a log file): one line that fills up on a terminal, or a line for
/// every tenth of the steps elsewhere.
/// </summary>
/// <param name="writer">Where to; it stays the caller's.</param>
/// <param name="title">The name at the line's start.</param>
/// <param name="live">Whether the line may be overwritten by a carriage return: true for a terminal, false where the output goes to a file.</param>
/// <param name="time">The clock, for at most ten drawings a second; null for the system's.</param>
public sealed class ProgressBar(TextWriter writer, string title = "train", bool live = false, TimeProvider? time = null) : ITrainingObserver
{
    private const int BarWidth = 24, Smoothing = 20, PlainLines = 10;

    private static readonly TimeSpan Interval = TimeSpan.FromSeconds(0.1);

    private readonly TimeProvider _time = time ?? TimeProvider.System;
    private readonly Queue<double> _recent = new();
    private long? _drawn;
    private int _done, _width;
    private double _seconds;
    private long _tokens;

    /// <summary>Tokens per second over all steps so far.</summary>
    public double TokensPerSecond => _seconds > 0 ? _tokens / _seconds : 0;

    /// <summary>Seconds of all steps so far.</summary>
    public double Seconds => _seconds;

    /// <inheritdoc/>
    public void OnStart(TrainingStart start)
    {
        ArgumentNullException.ThrowIfNull(start);
        writer.WriteLine(Text($"{title}: {start.SampleCount} samples, {start.TotalSteps} steps, {start.TrainedElements:N0} trained parameters"));
    }

    /// <inheritdoc/>
    public TrainingVerdict OnStep(StepReport report)
    {
        ArgumentNullException.ThrowIfNull(report);
        if (double.IsFinite(report.Loss)) _recent.Enqueue(report.Loss);
        if (_recent.Count > Smoothing) _recent.Dequeue();
        _seconds += report.Seconds;
        _tokens += report.Tokens;
        _done++;
        if (report.Evaluation is { } evaluation)
            Line(Text($"{title}: step {report.Step}, {string.Join(", ", evaluation.Values.Select(v => Text($"{v.Name} {v.Value:G5}")))}{(evaluation.IsBest ? ", the best so far" : "")}"));
        if (live)
        {
            bool last = report.Step == report.TotalSteps;
            if (last || _drawn is not long drawn || _time.GetElapsedTime(drawn) >= Interval) Draw(report);
        }
        else if (report.Step * PlainLines / report.TotalSteps != (report.Step - 1) * PlainLines / report.TotalSteps)
        {
            writer.WriteLine($"{title} {Facts(report)}");
        }
        return TrainingVerdict.Continue;
    }

    /// <inheritdoc/>
    public void OnEnd(TrainingSummary summary)
    {
        ArgumentNullException.ThrowIfNull(summary);
        if (_width > 0) writer.WriteLine();
        _width = 0;
        writer.WriteLine(Text($"{title}: {(summary.Stopped ? "stopped after " : "")}{summary.Steps} steps in {summary.Seconds:F1} s, mean loss {summary.MeanLoss:F3}"));
        writer.Flush();
    }

    private void Draw(StepReport report)
    {
        int filled = (int)((long)BarWidth * report.Step / report.TotalSteps);
        string line = $"{title} [{new string('#', filled)}{new string('.', BarWidth - filled)}] {Facts(report)}";
        // Blanks over what a longer line left.
        writer.Write("\r" + line.PadRight(_width));
        writer.Flush();
        _width = line.Length;
        _drawn = _time.GetTimestamp();
    }

    /// <summary>A line of its own above the bar.</summary>
    private void Line(string text)
    {
        if (_width > 0) writer.Write("\r" + new string(' ', _width) + "\r");
        _width = 0;
        writer.WriteLine(text);
    }

    private string Facts(StepReport report)
    {
        double left = _seconds / _done * (report.TotalSteps - report.Step);
        double loss = _recent.Count > 0 ? _recent.Average() : double.NaN;
        return Text($"{report.Step,4}/{report.TotalSteps}  loss {loss:F3}  rate {(report.Rates.Count > 0 ? report.Rates[0] : 0):G2}  {TokensPerSecond:N0} tokens/s  {left:F0} s left");
    }

    private static string Text(FormattableString text) => text.ToString(CultureInfo.InvariantCulture);
}
