namespace Peft.Llava;

/// <summary>A training was cancelled. Nothing is lost: the model has the weights of the steps done.</summary>
/// <param name="stepsDone">Steps done.</param>
/// <param name="totalSteps">Steps of the whole training.</param>
/// <param name="inner">Where it was noticed.</param>
/// <param name="token">The token.</param>
public sealed class TrainingCanceledException(int stepsDone, int totalSteps, Exception inner, CancellationToken token)
    : OperationCanceledException($"The training was cancelled after {stepsDone} of {totalSteps} steps. The model has the weights of these steps; "
        + "call SaveModel() to keep them.", inner, token)
{
    /// <summary>Steps done.</summary>
    public int StepsDone { get; } = stepsDone;
}
