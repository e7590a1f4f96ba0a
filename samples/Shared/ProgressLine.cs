using Peft.Llava;

namespace Peft.Samples;

/// <summary>Shows a training on the console and keeps its losses.</summary>
internal sealed class ProgressLine(string title) : ITrainingObserver
{
    private readonly ProgressBar _bar = new(Console.Out, title, live: !Console.IsOutputRedirected);

    /// <summary>The loss of every step, for a curve.</summary>
    public List<double> Losses { get; } = [];

    /// <summary>Tokens per second over the whole training.</summary>
    public double TokensPerSecond => _bar.TokensPerSecond;

    /// <summary>Seconds of all steps.</summary>
    public double Seconds => _bar.Seconds;

    public void OnStart(TrainingStart start) => _bar.OnStart(start);

    public TrainingVerdict OnStep(StepReport report)
    {
        Losses.Add(report.Loss);
        return _bar.OnStep(report);
    }

    public void OnEnd(TrainingSummary summary) => _bar.OnEnd(summary);
}
