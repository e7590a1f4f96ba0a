using System.Globalization;
using Peft.Llava;

namespace Peft.Samples;

/// <summary>Shows a training: one line that fills up on a terminal, a plain line for every tenth of the steps elsewhere.</summary>
internal sealed class ProgressLine(string title) : ITrainingObserver
{
    private const int BarWidth = 24;
    private const int Smoothing = 20;
    private const int PlainLines = 10;
    private readonly bool _live = !Console.IsOutputRedirected;
    private readonly Queue<double> _recent = new();
    private double _seconds;
    private long _tokens;

    /// <summary>The loss of every step, for a curve.</summary>
    public List<double> Losses { get; } = [];

    /// <summary>Tokens per second over the whole training.</summary>
    public double TokensPerSecond => _seconds > 0 ? _tokens / _seconds : 0;

    /// <summary>Seconds of all steps.</summary>
    public double Seconds => _seconds;

    public void OnStart(TrainingStart start)
        => Console.WriteLine(Text($"{title}: {start.SampleCount} samples, {start.TotalSteps} steps, {start.TrainedElements:N0} trained parameters"));

    public TrainingVerdict OnStep(StepReport report)
    {
        Losses.Add(report.Loss);
        _recent.Enqueue(report.Loss);
        if (_recent.Count > Smoothing) _recent.Dequeue();
        _seconds += report.Seconds;
        _tokens += report.Tokens;
        double left = _seconds / report.Step * (report.TotalSteps - report.Step);
        string facts = Text($"{report.Step,4}/{report.TotalSteps}  loss {_recent.Average():F3}  rate {report.Rates[0]:G2}  {TokensPerSecond:N0} tokens/s  {left:F0} s left");
        if (_live)
        {
            int filled = BarWidth * report.Step / report.TotalSteps;
            Console.Write($"\r{title} [{new string('#', filled)}{new string('.', BarWidth - filled)}] {facts}   ");
        }
        else if (report.Step * PlainLines / report.TotalSteps != (report.Step - 1) * PlainLines / report.TotalSteps)
        {
            Console.WriteLine($"{title} {facts}");
        }
        return TrainingVerdict.Continue;
    }

    public void OnEnd(TrainingSummary summary)
    {
        if (_live) Console.WriteLine();
        Console.WriteLine(Text($"{title}: {summary.Steps} steps in {summary.Seconds:F1} s, mean loss {summary.MeanLoss:F3}"));
    }

    private static string Text(FormattableString text) => text.ToString(CultureInfo.InvariantCulture);
}
