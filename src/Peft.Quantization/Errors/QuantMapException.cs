using Peft.Core;

namespace Peft.Quantization;

/// <summary>A code table or map is not one that belongs to the codes.</summary>
public sealed class QuantMapException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="message">What is wrong and what to do.</param>
    public QuantMapException(string message)
        : base(message)
    {
    }
}
