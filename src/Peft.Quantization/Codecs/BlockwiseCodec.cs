using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Quantization;

/// <summary>
/// Block-wise 8-bit quantisation over a 256-entry map, as bitsandbytes' reference: nearest entries, ties to the lower.
/// It serves double quantisation and the states of the 8-bit optimizers.
/// </summary>
/// <param name="Map">The map.</param>
/// <param name="BlockSize">Values per block: a power of two from 64 to 4096.</param>
public sealed record BlockwiseCodec(EightBitMap Map, int BlockSize = 256)
{
    private static readonly int[] Sizes = [64, 128, 256, 512, 1024, 2048, 4096];

    /// <summary>The block sizes there are.</summary>
    public static IReadOnlyList<int> BlockSizes => Sizes;

    /// <summary>Quantises a tensor in flat order.</summary>
    /// <param name="source">Any shape; fp32, bf16 or fp16.</param>
    /// <returns>uint8 codes in the source's shape and (blocks) fp32 maxima, fresh, in the current dispose scope.</returns>
    /// <exception cref="UnsupportedBlockSizeException">No such block size.</exception>
    /// <exception cref="UnsupportedWeightDtypeException">Another dtype.</exception>
    public (Tensor Codes, Tensor Absmax) Encode(Tensor source)
    {
        ArgumentNullException.ThrowIfNull(source);
        if (!Sizes.Contains(BlockSize)) throw new UnsupportedBlockSizeException("8-bit block-wise quantisation", BlockSize, Sizes);
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var values = source.detach().contiguous();
        var codes = empty(values.shape, ScalarType.Byte, values.device);
        var absmax = empty([(values.numel() + BlockSize - 1) / BlockSize], ScalarType.Float32, values.device);
        KernelSelection.For(values.device).EncodeBlockwise(values, Map, BlockSize, codes, absmax);
        return (codes.MoveToOuterDisposeScope(), absmax.MoveToOuterDisposeScope());
    }

    /// <summary>The values in full.</summary>
    /// <param name="codes">uint8, any shape.</param>
    /// <param name="absmax">(blocks) fp32.</param>
    /// <param name="dtype">The dtype wanted.</param>
    /// <returns>A fresh tensor in the codes' shape, in the current dispose scope.</returns>
    /// <exception cref="QuantStateException">The maxima do not fit the codes.</exception>
    public Tensor Decode(Tensor codes, Tensor absmax, ScalarType dtype)
    {
        ArgumentNullException.ThrowIfNull(codes);
        ArgumentNullException.ThrowIfNull(absmax);
        long blocks = (codes.numel() + BlockSize - 1) / BlockSize;
        if (absmax.numel() != blocks)
            throw new QuantStateException("8-bit codes", $"absmax has {absmax.numel()} entries, expected {blocks} for {codes.numel()} codes in blocks of {BlockSize}.");
        using var noGrad = no_grad();
        var target = empty(codes.shape, dtype, codes.device);
        KernelSelection.For(codes.device).DecodeBlockwise(codes, absmax, Map, BlockSize, 0f, target);
        return target;
    }
}
