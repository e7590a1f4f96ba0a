namespace Peft.Llava;

/// <summary>A training was cancelled. Nothing is lost: the model has the weights of the steps done.</summary>
/// <param name="stepsDone">Steps done.</param>
/// <param name="totalSteps">Steps of the whole training.</param>
/// <param name="inner">Where it was noticed.</param>
/// <param name="token">The token.</param>
/// <param name="checkpoint">The checkpoint of these steps, if one was written.</param>
public sealed class TrainingCanceledException(int stepsDone, int totalSteps, Exception inner, CancellationToken token, string? checkpoint = null)
    : OperationCanceledException($"The training was cancelled after {stepsDone} of {totalSteps} steps. The model has the weights of these steps; "
        + (checkpoint is null ? "call SaveModel() to keep them." : $"resume from {checkpoint}, or call SaveModel() for the results alone."), inner, token)
{
    /// <summary>Steps done.</summary>
    public int StepsDone { get; } = stepsDone;

    /// <summary>The checkpoint of these steps, for <see cref="LLaVATrainer.ResumeFrom"/>; null if none was written.</summary>
    public string? Checkpoint { get; } = checkpoint;
}
