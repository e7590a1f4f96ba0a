using static TorchSharp.torch;

namespace Peft.Quantization;

/// <summary>The scales of the blocks of a 4-bit weight: fp32, or 8-bit with a second level of statistics (double quantisation).</summary>
/// <param name="Absmax">(blocks) fp32, or uint8 codes of the signed dynamic map.</param>
/// <param name="NestedAbsmax">(ceil(blocks / 256)) fp32, or null.</param>
/// <param name="NestedOffset">The mean that was taken off before the second level.</param>
internal readonly record struct BlockScales(Tensor Absmax, Tensor? NestedAbsmax, float NestedOffset)
{
    /// <summary>Blocks of the second level.</summary>
    public const int NestedBlockSize = 256;
}
