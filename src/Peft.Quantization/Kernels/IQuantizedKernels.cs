using static TorchSharp.torch;

namespace Peft.Quantization;

/// <summary>
/// The operations on packed weights. Targets are made by the caller (they may be reused buffers); all tensors are contiguous and on one
/// device. Floating-point sources and targets are fp32, bf16 or fp16.
/// </summary>
internal interface IQuantizedKernels
{
    /// <summary>4-bit codes and block maxima of <paramref name="source"/> in flat order; the high nibble comes first.</summary>
    /// <param name="source">Any shape, n values.</param>
    /// <param name="table">The code.</param>
    /// <param name="blockSize">Values per block.</param>
    /// <param name="packed">ceil(n / 2) bytes.</param>
    /// <param name="absmax">ceil(n / blockSize) fp32.</param>
    void EncodeFourBit(Tensor source, FourBitTable table, int blockSize, Tensor packed, Tensor absmax);

    /// <summary>code * block scale, rounded once to <paramref name="through"/> and then to the target's dtype.</summary>
    /// <param name="packed">ceil(n / 2) bytes.</param>
    /// <param name="scales">The block scales.</param>
    /// <param name="table">The code.</param>
    /// <param name="blockSize">Values per block.</param>
    /// <param name="through">The dtype of the original weight if its rounding is wanted, else the target's.</param>
    /// <param name="target">n values.</param>
    void DecodeFourBit(Tensor packed, BlockScales scales, FourBitTable table, int blockSize, ScalarType through, Tensor target);

    /// <summary>W x for one vector, without decoding W to memory. W's values are rounded to <paramref name="through"/>, sums are fp32.</summary>
    /// <param name="packed">The (out, in) weight's codes; in is even.</param>
    /// <param name="scales">The block scales.</param>
    /// <param name="table">The code.</param>
    /// <param name="blockSize">Values per block.</param>
    /// <param name="through">The dtype the weight's values are rounded to.</param>
    /// <param name="input">(in) fp32.</param>
    /// <param name="target">(out) fp32.</param>
    void MultiplyFourBit(Tensor packed, BlockScales scales, FourBitTable table, int blockSize, ScalarType through, Tensor input, Tensor target);

    /// <summary>8-bit codes and block maxima of <paramref name="source"/> in flat order.</summary>
    void EncodeBlockwise(Tensor source, EightBitMap map, int blockSize, Tensor codes, Tensor absmax);

    /// <summary>map[code] * block maximum + <paramref name="offset"/>, in fp32, rounded to the target's dtype.</summary>
    void DecodeBlockwise(Tensor codes, Tensor absmax, EightBitMap map, int blockSize, float offset, Tensor target);

    /// <summary>Row-wise int8: the source is cast to fp16; entries of at least <paramref name="threshold"/> (if above 0) are left out of the row's maximum.</summary>
    /// <param name="source">(rows, columns).</param>
    /// <param name="threshold">0 for none.</param>
    /// <param name="codes">(rows, columns) int8; outlier columns still hold their other entries' codes.</param>
    /// <param name="absmax">(rows) fp32.</param>
    /// <param name="outlierColumns">(columns) uint8 or null: becomes 1 where any entry is an outlier.</param>
    void EncodeRows(Tensor source, float threshold, Tensor codes, Tensor absmax, Tensor? outlierColumns);

    /// <summary>code * (row maximum * (1 / 127)), rounded to the target's dtype; with <paramref name="scaleFirst"/> false (code * maximum) * (1 / 127).</summary>
    void DecodeRows(Tensor codes, Tensor absmax, bool scaleFirst, Tensor target);

    /// <summary>products * (row scale * column scale) * step + bias, rounded to the target's dtype.</summary>
    /// <param name="products">(rows, columns) int32.</param>
    /// <param name="rowScales">(rows) fp32.</param>
    /// <param name="columnScales">(columns) fp32.</param>
    /// <param name="step">About 1 / 127².</param>
    /// <param name="bias">(columns) fp32 or null.</param>
    /// <param name="target">(rows, columns).</param>
    void ScaleProducts(Tensor products, Tensor rowScales, Tensor columnScales, float step, Tensor? bias, Tensor target);
}
