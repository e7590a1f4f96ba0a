using Peft.Core;

namespace Peft.Quantization;

/// <summary>An input of an int8 layer has entries that its quantisation cannot hold.</summary>
public sealed class ActivationRangeException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="name">The layer.</param>
    /// <param name="threshold">Its outlier threshold.</param>
    public ActivationRangeException(string name, float threshold)
        : base($"{name}: the input holds NaN, infinity or a magnitude above fp16's 65504, and its row cannot be scaled to int8 (threshold {threshold}). "
            + "Look for what overflowed before this layer, or set a threshold such as 6, which computes large entries in floating point.")
    {
        Name = name;
    }

    /// <summary>The layer.</summary>
    public string Name { get; }
}
