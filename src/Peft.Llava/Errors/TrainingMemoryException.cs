using Peft.Core;

namespace Peft.Llava;

/// <summary>The memory did not suffice for a step.</summary>
public sealed class TrainingMemoryException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="step">The step, from 1.</param>
    /// <param name="batch">The micro-batches of the step, in words.</param>
    /// <param name="weightsMoved">Whether the update had begun, so that weights may have moved.</param>
    /// <param name="checkpoint">The newest checkpoint, or null.</param>
    /// <param name="nextSteps">What takes less memory, as half sentences.</param>
    /// <param name="estimate">What the memory was estimated at, or null where that is not possible.</param>
    /// <param name="innerException">What the allocation failed with.</param>
    public TrainingMemoryException(
        int step, string batch, bool weightsMoved, string? checkpoint, IReadOnlyList<string> nextSteps, MemoryEstimate? estimate, Exception innerException)
        : base($"In step {step} the memory did not suffice for {batch}: {FirstLine(innerException)}. "
            + (weightsMoved ? "The update had begun, so weights may be those of before or after it. " : $"The weights are those after step {step - 1}. ")
            + (checkpoint is null ? weightsMoved ? "Start again" : "Call SaveModel to keep them, and start again"
                : $"The checkpoint {checkpoint} is whole; resume from it") + $" with less to hold: {string.Join(", or ", nextSteps)}."
            + (estimate is null ? "" : $"\nThe estimate for such a step:\n{estimate}"), innerException)
    {
        Step = step;
        WeightsMoved = weightsMoved;
        Checkpoint = checkpoint;
        Estimate = estimate;
    }

    /// <summary>The step, from 1.</summary>
    public int Step { get; }

    /// <summary>Whether the update had begun, so that weights may have moved; otherwise they are those of the step before.</summary>
    public bool WeightsMoved { get; }

    /// <summary>The newest checkpoint, or null.</summary>
    public string? Checkpoint { get; }

    /// <summary>What the memory of such a step was estimated at, or null where that is not possible.</summary>
    public MemoryEstimate? Estimate { get; }

    private static string FirstLine(Exception e)
    {
        string text = e.Message.Split('\n')[0].TrimEnd('.', ' ', '\r');
        int at = text.IndexOf("] ", StringComparison.Ordinal);
        return text.StartsWith('[') && at > 0 ? text[(at + 2)..].TrimStart('.', ' ') : text;
    }
}
