namespace Peft.Llava;

/// <summary>What one step did.</summary>
public sealed record StepReport
{
    /// <summary>The step, from 1.</summary>
    public required int Step { get; init; }

    /// <summary>Steps of the whole training.</summary>
    public required int TotalSteps { get; init; }

    /// <summary>Epochs done, as transformers counts.</summary>
    public required double Epoch { get; init; }

    /// <summary>The step's loss, by the weighting in use. NaN only in the LLaVA-exact mode, for a micro-batch that supervises nothing.</summary>
    public required double Loss { get; init; }

    /// <summary>The mean loss of each micro-batch over its own tokens.</summary>
    public required IReadOnlyList<double> MicroLosses { get; init; }

    /// <summary>The samples of each micro-batch.</summary>
    public required IReadOnlyList<IReadOnlyList<string>> SampleIds { get; init; }

    /// <summary>The norm over all gradients before clipping; not finite in a skipped step.</summary>
    public required double GradNorm { get; init; }

    /// <summary>Whether the gradients were scaled down.</summary>
    public required bool Clipped { get; init; }

    /// <summary>Whether a gradient overflowed in float16, so that no weight was moved and the rate stays where it was.</summary>
    public bool Skipped { get; init; }

    /// <summary>What the loss was multiplied with before the backward pass; 1 without loss scaling.</summary>
    public double LossScale { get; init; } = 1;

    /// <summary>The learning rate used, per parameter group.</summary>
    public required IReadOnlyList<double> Rates { get; init; }

    /// <summary>The learning rate of the next step, per parameter group.</summary>
    public required IReadOnlyList<double> NextRates { get; init; }

    /// <summary>Tokens of all samples, image features included, padding not.</summary>
    public required long Tokens { get; init; }

    /// <summary>Tokens with a label.</summary>
    public required long SupervisedTokens { get; init; }

    /// <summary>The evaluation after this step; null if there was none.</summary>
    public EvaluationReport? Evaluation { get; init; }

    /// <summary>Seconds of the whole step, without an evaluation.</summary>
    public required double Seconds { get; init; }

    /// <summary>Seconds in which the step waited for its data.</summary>
    public required double DataWaitSeconds { get; init; }

    /// <summary>
    /// Seconds of the passes through the model, the gradient norm and the update. What of <see cref="Seconds"/> is neither these nor
    /// <see cref="DataWaitSeconds"/> is the trainer's own.
    /// </summary>
    public double ComputeSeconds { get; init; }
}
