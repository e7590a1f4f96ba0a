using Peft.Core;

namespace Peft.Quantization;

/// <summary>The statistics of a quantised weight, or the 8-bit state of an optimizer, are missing, truncated or contradict the codes.</summary>
public sealed class QuantStateException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="name">The weight's name.</param>
    /// <param name="problem">What is wrong.</param>
    /// <param name="innerException">The cause, if another exception led here.</param>
    public QuantStateException(string name, string problem, Exception? innerException = null)
        : base($"{name}: {problem} Take the file again from where it came, or quantise the original weight anew.", innerException)
    {
        Name = name;
    }

    private QuantStateException(int index, string problem)
        : base($"{PlaceOf(index)}: {problem} Load the state that was saved with these parameters, or go on without one: the moments then start anew.")
    {
        Name = PlaceOf(index);
    }

    /// <summary>The name of the weight, or the place of the optimizer's state.</summary>
    public string Name { get; }

    /// <summary>The exception for an optimizer's state.</summary>
    /// <param name="index">The parameter's place.</param>
    /// <param name="problem">What is wrong.</param>
    internal static QuantStateException OfOptimizer(int index, string problem) => new(index, problem);

    private static string PlaceOf(int index) => $"optimizer state {index}";
}
