namespace Peft.Llava;

/// <summary>What an observer wants.</summary>
public enum TrainingVerdict
{
    /// <summary>Go on.</summary>
    Continue,

    /// <summary>Stop after this step; the training ends in order, as if it had been planned so.</summary>
    Stop,
}

/// <summary>
/// Watches a training: logs, progress bars, curves, early stop. The trainer itself writes nothing to a console. An exception that an observer
/// throws ends the training and reaches the caller; the weights stay as they are then.
/// </summary>
public interface ITrainingObserver
{
    /// <summary>Before the first step.</summary>
    /// <param name="start">What is about to happen.</param>
    void OnStart(TrainingStart start)
    {
    }

    /// <summary>Between the backward pass and the change of the weights: gradients are whole and not yet clipped. Not called in a step that is skipped.</summary>
    /// <param name="step">The step, from 1.</param>
    /// <param name="groups">The parameters; their gradients may be read, and must not be kept.</param>
    void OnGradients(int step, IReadOnlyList<ParameterGroup> groups)
    {
    }

    /// <summary>After a step.</summary>
    /// <param name="report">What it did.</param>
    /// <returns>Whether to go on.</returns>
    TrainingVerdict OnStep(StepReport report);

    /// <summary>After the last step, however the training ended without an exception.</summary>
    /// <param name="summary">What was done.</param>
    void OnEnd(TrainingSummary summary)
    {
    }
}

/// <summary>What a training is about to do.</summary>
/// <param name="TotalSteps">Steps.</param>
/// <param name="BatchesPerEpoch">Micro-batches of one epoch.</param>
/// <param name="SampleCount">Samples.</param>
/// <param name="WarmupSteps">Steps of warm-up.</param>
/// <param name="Groups">The parameters.</param>
public sealed record TrainingStart(int TotalSteps, int BatchesPerEpoch, int SampleCount, int WarmupSteps, IReadOnlyList<ParameterGroup> Groups)
{
    /// <summary>The trainer: its model may be evaluated and saved between steps. Null where no trainer is behind the start (a test).</summary>
    public LLaVATrainer? Trainer { get; init; }

    /// <summary>Elements that are trained.</summary>
    public long TrainedElements => Groups.Sum(g => g.Parameters.Sum(p => p.Parameter.numel()));
}

/// <summary>What a training did.</summary>
/// <param name="Steps">Steps done.</param>
/// <param name="Epoch">Epochs done, as transformers counts.</param>
/// <param name="MeanLoss">The mean of the steps' losses; losses that are not numbers count as 0, as in transformers.</param>
/// <param name="Tokens">Tokens of all steps.</param>
/// <param name="Seconds">Seconds of all steps.</param>
/// <param name="Stopped">Whether an observer, or patience, ended it early.</param>
public sealed record TrainingSummary(int Steps, double Epoch, double MeanLoss, long Tokens, double Seconds, bool Stopped)
{
    /// <summary>The best evaluation; null without evaluations.</summary>
    public EvaluationReport? Best { get; init; }
}
