using Peft.Core;

namespace Peft.Llava;

/// <summary>No token of a step has a label, so there is nothing to learn from it. The weights are those of the step before.</summary>
public sealed class NoSupervisedTokensException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="step">The step, from 1.</param>
    /// <param name="sampleIds">The step's samples.</param>
    public NoSupervisedTokensException(int step, IReadOnlyList<string> sampleIds)
        : base($"In step {step} no token has a label. Samples: {string.Join(", ", sampleIds.Take(8))}{(sampleIds.Count > 8 ? ", …" : "")}. "
            + "Their answers are empty or lie behind the length limit: raise MaxLength, or leave them out.")
    {
        Step = step;
        SampleIds = sampleIds;
    }

    /// <summary>The step, from 1.</summary>
    public int Step { get; }

    /// <summary>The step's samples.</summary>
    public IReadOnlyList<string> SampleIds { get; }
}
