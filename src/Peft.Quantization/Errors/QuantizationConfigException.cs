using Peft.Core;

namespace Peft.Quantization;

/// <summary>Quantisation settings that cannot be.</summary>
public sealed class QuantizationConfigException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="source">Where they stand.</param>
    /// <param name="problems">All that is wrong.</param>
    public QuantizationConfigException(string source, IReadOnlyList<string> problems)
        : base($"{source}: {string.Join("; ", problems)}. Correct the quantisation settings.")
    {
        Problems = problems;
    }

    /// <summary>All that is wrong.</summary>
    public IReadOnlyList<string> Problems { get; }
}
