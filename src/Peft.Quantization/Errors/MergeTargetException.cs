using Peft.Core;

namespace Peft.Quantization;

/// <summary>Adapters cannot be merged into the target asked for.</summary>
public sealed class MergeTargetException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="message">What is wrong and what to do.</param>
    public MergeTargetException(string message)
        : base(message)
    {
    }
}
