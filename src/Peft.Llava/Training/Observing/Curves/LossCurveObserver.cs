using Peft.Core;

namespace Peft.Llava;

/// <summary>Draws a training's losses and evaluation losses as a PNG, at its end and every so many steps.</summary>
/// <param name="path">The file, replaced as a whole each time; its folder is made if need be.</param>
/// <param name="title">The line above the curve.</param>
/// <param name="every">Steps between drawings; 0 draws at the end alone.</param>
public sealed class LossCurveObserver(string path, string title = "Training loss", int every = 0) : ITrainingObserver
{
    private readonly List<double> _losses = [];
    private readonly List<(int, double)> _evaluations = [];
    private int _first = 1;

    /// <summary>What is drawn.</summary>
    public LossSeries Series => new("loss", [.. _losses], _first) { Evaluations = [.. _evaluations] };

    /// <inheritdoc/>
    /// <exception cref="FileWriteException">The operating system refused.</exception>
    public TrainingVerdict OnStep(StepReport report)
    {
        ArgumentNullException.ThrowIfNull(report);
        if (_losses.Count == 0) _first = report.Step;
        _losses.Add(report.Loss);
        if (report.Evaluation?.Loss is double loss) _evaluations.Add((report.Step, loss));
        if (every > 0 && report.Step % every == 0) LossCurve.Write(path, title, Series);
        return TrainingVerdict.Continue;
    }

    /// <inheritdoc/>
    /// <exception cref="FileWriteException">The operating system refused.</exception>
    public void OnEnd(TrainingSummary summary) => LossCurve.Write(path, title, Series);
}
