using Peft.Core;

namespace Peft.Quantization;

/// <summary>The statistics of a quantised weight are missing, truncated or contradict its codes.</summary>
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

    /// <summary>The weight's name.</summary>
    public string Name { get; }
}
