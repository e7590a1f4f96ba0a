namespace Peft.Core;

/// <summary><see cref="CpuLevels.Variable"/> names no level of the processor.</summary>
/// <param name="value">What it holds.</param>
/// <param name="problem">What is wrong with it.</param>
public sealed class CpuLevelException(string value, string problem)
    : PeftException($"{problem}{(problem.EndsWith('?') ? "" : ".")} Correct the environment variable, or unset it to use what the processor has.")
{
    /// <summary>What the variable holds.</summary>
    public string Value { get; } = value;
}
