using Peft.Core;

namespace Peft.Quantization;

/// <summary>A weight that is to be quantised holds NaN or infinity, which would spoil its whole block or row.</summary>
public sealed class NonFiniteWeightException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="name">The weight's name.</param>
    /// <param name="shape">Its shape.</param>
    /// <param name="flatIndex">Where the first such value stands, in flat order.</param>
    /// <param name="value">That value.</param>
    public NonFiniteWeightException(string name, IReadOnlyList<long> shape, long flatIndex, float value)
        : base($"{name} ({string.Join(", ", shape)}) holds {value} at flat index {flatIndex}; quantising would spoil the whole block or row. "
            + "The checkpoint is damaged, or its dtype overflowed (fp16 ends at 65504): load it in another dtype or repair the file.")
    {
        Name = name;
        FlatIndex = flatIndex;
    }

    /// <summary>The weight's name.</summary>
    public string Name { get; }

    /// <summary>Where the first such value stands, in flat order.</summary>
    public long FlatIndex { get; }
}
