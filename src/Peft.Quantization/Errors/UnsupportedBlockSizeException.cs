using Peft.Core;

namespace Peft.Quantization;

/// <summary>A block size that the codec does not have.</summary>
public sealed class UnsupportedBlockSizeException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="codec">Which codec.</param>
    /// <param name="blockSize">The block size asked for.</param>
    /// <param name="supported">Those it has.</param>
    public UnsupportedBlockSizeException(string codec, int blockSize, IReadOnlyList<int> supported)
        : base($"{codec} has no block size {blockSize}; it has {string.Join(", ", supported)}. bitsandbytes' default is 64 for 4-bit weights and 256 for statistics and optimizer states.")
    {
        BlockSize = blockSize;
    }

    /// <summary>The block size asked for.</summary>
    public int BlockSize { get; }
}
