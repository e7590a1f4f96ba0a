using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Quantization;

/// <summary>
/// Block-wise 4-bit quantisation (NF4, FP4) with the bytes and statistics of bitsandbytes' reference: blocks run flat over the tensor
/// in memory order, each is scaled by its largest magnitude, and every value gets the nearest code.
/// </summary>
/// <param name="Type">The code.</param>
/// <param name="BlockSize">Values per block: a power of two from 32 to 4096.</param>
/// <param name="DoubleQuantization">Whether the block maxima are quantised to 8 bits too (less their mean, in blocks of 256).</param>
public sealed record FourBitCodec(QuantType Type, int BlockSize = 64, bool DoubleQuantization = false)
{
    private static readonly int[] Sizes = [32, 64, 128, 256, 512, 1024, 2048, 4096];

    /// <summary>The block sizes there are.</summary>
    public static IReadOnlyList<int> BlockSizes => Sizes;

    /// <summary>Quantises a weight.</summary>
    /// <param name="weight">Any shape; fp32, bf16 or fp16. Not kept and not changed.</param>
    /// <param name="name">What messages call it.</param>
    /// <param name="allowNonFinite">Whether NaN and infinity are let through, to spoil their block as they do in bitsandbytes.</param>
    /// <returns>Fresh tensors on the weight's device; the caller disposes it.</returns>
    /// <exception cref="UnsupportedBlockSizeException">No such block size.</exception>
    /// <exception cref="UnsupportedQuantTypeException">No such code.</exception>
    /// <exception cref="UnsupportedWeightDtypeException">Another dtype.</exception>
    /// <exception cref="NonFiniteWeightException">NaN or infinity in the weight.</exception>
    public PackedWeight Encode(Tensor weight, string name = "weight", bool allowNonFinite = false)
    {
        ArgumentNullException.ThrowIfNull(weight);
        RequireBlockSize(BlockSize);
        var table = FourBitTable.For(Type);
        _ = FloatElements.KindOf(weight.dtype);
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var source = weight.detach().contiguous();
        long count = source.numel(), blocks = (count + BlockSize - 1) / BlockSize;
        var packed = empty([(count + 1) / 2, 1], ScalarType.Byte, source.device);
        var absmax = empty([blocks], ScalarType.Float32, source.device);
        KernelSelection.For(source.device).EncodeFourBit(source, table, BlockSize, packed, absmax);
        if (!allowNonFinite) FiniteWeights.Require(name, source, absmax);
        if (!DoubleQuantization)
            return new PackedWeight(packed, absmax, null, 0f, Type, BlockSize, weight.dtype, weight.shape, name);
        float offset = blocks == 0 ? 0f : absmax.mean().ToSingle();
        var (codes, nested) = NestCodes(absmax, offset);
        return new PackedWeight(packed, codes, nested, offset, Type, BlockSize, weight.dtype, weight.shape, name);
    }

    /// <summary>The second level of double quantisation: block maxima less their mean, in the signed dynamic map, blocks of 256.</summary>
    /// <param name="absmax">(blocks) fp32.</param>
    /// <param name="offset">What is taken off first.</param>
    /// <returns>(blocks) uint8 codes and (ceil(blocks / 256)) fp32 maxima, fresh, in the current dispose scope.</returns>
    public static (Tensor Codes, Tensor Absmax) NestCodes(Tensor absmax, float offset)
    {
        ArgumentNullException.ThrowIfNull(absmax);
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var (codes, nested) = new BlockwiseCodec(EightBitMap.DynamicSigned, BlockScales.NestedBlockSize).Encode(absmax - offset);
        return (codes.MoveToOuterDisposeScope(), nested.MoveToOuterDisposeScope());
    }

    /// <summary>The block maxima in full.</summary>
    /// <param name="weight">A packed weight.</param>
    /// <returns>(blocks) fp32, fresh, in the current dispose scope.</returns>
    public static Tensor BlockMaxima(PackedWeight weight)
    {
        ArgumentNullException.ThrowIfNull(weight);
        using var noGrad = no_grad();
        if (weight.NestedAbsmax is null) return weight.Absmax.clone();
        var target = empty(weight.Absmax.shape, ScalarType.Float32, weight.Absmax.device);
        KernelSelection.For(target.device).DecodeBlockwise(
            weight.Absmax, weight.NestedAbsmax, EightBitMap.DynamicSigned, BlockScales.NestedBlockSize, weight.NestedOffset, target);
        return target;
    }

    /// <summary>The weight in its original shape.</summary>
    /// <param name="weight">A packed weight.</param>
    /// <param name="dtype">The dtype wanted; values are rounded once, from fp32.</param>
    /// <returns>A fresh tensor, in the current dispose scope.</returns>
    public static Tensor Decode(PackedWeight weight, ScalarType dtype)
    {
        ArgumentNullException.ThrowIfNull(weight);
        using var noGrad = no_grad();
        var target = empty([.. weight.Shape], dtype, weight.Codes.device);
        Decode(weight, dtype, target);
        return target;
    }

    /// <summary>Decodes into a given tensor, rounding to <paramref name="through"/> first.</summary>
    internal static void Decode(PackedWeight weight, ScalarType through, Tensor target)
        => KernelSelection.For(target.device).DecodeFourBit(
            weight.Codes, weight.Scales, FourBitTable.For(weight.Type), weight.BlockSize, through, target);

    internal static void RequireBlockSize(int blockSize)
    {
        if (!Sizes.Contains(blockSize)) throw new UnsupportedBlockSizeException("4-bit quantisation", blockSize, Sizes);
    }
}
