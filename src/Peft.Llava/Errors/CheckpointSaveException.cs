using Peft.Core;

namespace Peft.Llava;

/// <summary>A checkpoint could not be written. Nothing is lost: weights and optimizer are in memory, earlier checkpoints are as they were.</summary>
public sealed class CheckpointSaveException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="step">The step whose checkpoint it was; 0 for the trial before the first step.</param>
    /// <param name="earlier">The newest whole checkpoint, or null.</param>
    /// <param name="cause">What went wrong.</param>
    public CheckpointSaveException(int step, string? earlier, PeftException cause)
        : base($"{(step == 0 ? "A trial save before the first step failed" : $"The checkpoint of step {step} could not be saved")}: {cause?.Message} "
            + (step == 0 ? "No step was done." : "Weights and optimizer are still in memory: call the trainer's SaveCheckpoint() when the cause is removed, or SaveCheckpoint(folder) with a "
                + $"folder on another disk, and resume from what it returns. {(earlier is null ? "There is no earlier checkpoint." : $"The earlier checkpoint {earlier} is whole.")}"), cause)
    {
        Step = step;
        Earlier = earlier;
    }

    /// <summary>The step whose checkpoint it was; 0 for the trial before the first step.</summary>
    public int Step { get; }

    /// <summary>The newest whole checkpoint, or null.</summary>
    public string? Earlier { get; }
}
