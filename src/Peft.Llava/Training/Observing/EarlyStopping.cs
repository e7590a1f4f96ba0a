namespace Peft.Llava;

/// <summary>
/// Stops a training that no longer gets better. By default it judges by the mean training loss of a window of steps; whoever evaluates gives
/// it better values by <see cref="Report"/> and sets the window to 0.
/// </summary>
public sealed class EarlyStopping : ITrainingObserver
{
    private readonly int _patience;
    private readonly MeanLossWindow? _window;

    /// <summary>Creates it.</summary>
    /// <param name="patience">Values without improvement after which the training stops.</param>
    /// <param name="window">Steps that one value is the mean training loss of; 0 to judge by <see cref="Report"/> alone.</param>
    /// <param name="minimumImprovement">By how much a value must be lower to count as better.</param>
    public EarlyStopping(int patience, int window = 50, double minimumImprovement = 0)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(patience, 1);
        ArgumentOutOfRangeException.ThrowIfNegative(window);
        ArgumentOutOfRangeException.ThrowIfNegative(minimumImprovement);
        _patience = patience;
        _window = window > 0 ? new MeanLossWindow(window) : null;
        Best = new BestValue(minimumImprovement);
    }

    /// <summary>The best value so far.</summary>
    public BestValue Best { get; }

    /// <summary>Whether patience has run out.</summary>
    public bool Stops => Best.Since >= _patience;

    /// <summary>Takes a value to judge by, such as an evaluation's loss.</summary>
    /// <param name="step">The step it was measured at.</param>
    /// <param name="value">Lower is better; not a number counts as no improvement.</param>
    public void Report(int step, double value) => Best.Add(step, value);

    /// <inheritdoc/>
    public TrainingVerdict OnStep(StepReport report)
    {
        ArgumentNullException.ThrowIfNull(report);
        if (_window?.Add(report.Loss) is double mean) Report(report.Step, mean);
        return Stops ? TrainingVerdict.Stop : TrainingVerdict.Continue;
    }
}
