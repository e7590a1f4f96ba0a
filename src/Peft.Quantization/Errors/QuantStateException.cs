using Peft.Core;

namespace Peft.Quantization;

/// <summary>The statistics of a quantised weight are missing, truncated or contradict its codes.</summary>
public sealed class QuantStateException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="name">The weight's name.</param>
    /// <param name="problem">What is wrong.</param>
    public QuantStateException(string name, string problem)
        : base($"{name}: {problem} Take the file again from where it came, or quantise the original weight anew.")
    {
        Name = name;
    }

    /// <summary>The weight's name.</summary>
    public string Name { get; }
}
