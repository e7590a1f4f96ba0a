using System.Globalization;
using Peft.Core;

namespace Peft.Llava;

/// <summary>A loss or a gradient is NaN or infinite. The weights are those of the step before, and checkpoints are as they were.</summary>
public sealed class NonFiniteLossException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="step">The step, from 1.</param>
    /// <param name="what">What is not finite: "the loss" or "the gradient".</param>
    /// <param name="value">The value.</param>
    /// <param name="sampleIds">The samples that may have caused it.</param>
    public NonFiniteLossException(int step, string what, double value, IReadOnlyList<string> sampleIds)
        : this(step, what, value, sampleIds, null)
    {
    }

    internal NonFiniteLossException(int step, string what, double value, IReadOnlyList<string> sampleIds, NonFiniteSource? source)
        : base($"In step {step} {what} is {value.ToString(CultureInfo.InvariantCulture)}; the weights are those after step {step - 1}. "
            + $"Samples: {string.Join(", ", sampleIds.Take(8))}{(sampleIds.Count > 8 ? ", …" : "")}. {(source is null ? "" : source.Sentence + " ")}"
            + "Look at these samples, lower the learning rate, or check the base's weights.")
    {
        Step = step;
        Value = value;
        SampleIds = sampleIds;
        Module = source?.Module;
    }

    /// <summary>The step, from 1.</summary>
    public int Step { get; }

    /// <summary>The value.</summary>
    public double Value { get; }

    /// <summary>The samples of the micro-batch that caused it.</summary>
    public IReadOnlyList<string> SampleIds { get; }

    /// <summary>
    /// The path of the first module whose output is not finite, such as <c>model.layers.3.mlp.down_proj</c>, or of the parameter whose gradient is the first
    /// that is not; null where it is no module's fault (pixels, the loss itself).
    /// </summary>
    public string? Module { get; }
}
