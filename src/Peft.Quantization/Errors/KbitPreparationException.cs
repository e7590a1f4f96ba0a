using Peft.Core;

namespace Peft.Quantization;

/// <summary>A model cannot be prepared as asked.</summary>
public sealed class KbitPreparationException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="message">What is wrong and what to do.</param>
    public KbitPreparationException(string message)
        : base(message)
    {
    }
}
