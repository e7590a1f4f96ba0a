namespace Peft.Core;

/// <summary>How wide the registers are that the kernels compute with.</summary>
public enum VectorWidth
{
    /// <summary>128 bits.</summary>
    Bits128,

    /// <summary>256 bits.</summary>
    Bits256,

    /// <summary>512 bits.</summary>
    Bits512,
}
