using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Quantization;

/// <summary>Every operation in plain tensor operations, on any device: the semantics that the C# kernels repeat.</summary>
internal sealed class ReferenceKernels : IQuantizedKernels
{
    /// <inheritdoc/>
    public void EncodeFourBit(Tensor source, FourBitTable table, int blockSize, Tensor packed, Tensor absmax)
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var scaled = Scale(source, blockSize, absmax);
        if (scaled.shape[0] % 2 != 0) scaled = cat([scaled, zeros([1], device: source.device)]);
        var codes = Nearest(scaled, tensor(table.Midpoints.ToArray(), device: source.device));
        codes = tensor(table.Order.ToArray(), device: source.device)[codes].view(-1, 2);
        packed.view(-1).copy_(codes.select(1, 0) * 16 + codes.select(1, 1));
    }

    /// <inheritdoc/>
    public void DecodeFourBit(Tensor packed, BlockScales scales, FourBitTable table, int blockSize, ScalarType through, Tensor target)
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        target.copy_(Values(packed, scales, table, blockSize, target.numel()).to(through).view(target.shape));
    }

    /// <inheritdoc/>
    public void MultiplyFourBit(Tensor packed, BlockScales scales, FourBitTable table, int blockSize, ScalarType through, Tensor input, Tensor target)
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var weight = Values(packed, scales, table, blockSize, input.numel() * target.numel()).to(through).to(ScalarType.Float32);
        target.copy_(weight.view(target.numel(), input.numel()).mv(input.view(-1)).view(target.shape));
    }

    /// <inheritdoc/>
    public void EncodeBlockwise(Tensor source, EightBitMap map, int blockSize, Tensor codes, Tensor absmax)
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var values = map.ToTensor().to(source.device);
        var midpoints = (values[TensorIndex.Slice(null, -1)] + values[TensorIndex.Slice(1)]) / 2;
        codes.view(-1).copy_(Nearest(Scale(source, blockSize, absmax), midpoints));
    }

    /// <inheritdoc/>
    public void DecodeBlockwise(Tensor codes, Tensor absmax, EightBitMap map, int blockSize, float offset, Tensor target)
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        target.copy_(Blockwise(codes, absmax, map, blockSize, offset).view(target.shape));
    }

    /// <inheritdoc/>
    public void EncodeRows(Tensor source, float threshold, Tensor codes, Tensor absmax, Tensor? outlierColumns)
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var values = source.to(ScalarType.Float16).to(ScalarType.Float32);
        var counted = values.abs();
        if (threshold > 0)
        {
            var outliers = counted.ge(threshold);
            outlierColumns?.copy_(outliers.any(dim: 0L));
            counted = counted.masked_fill(outliers, 0);
        }
        absmax.copy_(counted.amax([1]));
        var scale = where(absmax == 0, zeros_like(absmax), absmax.reciprocal() * 127);
        codes.copy_((values * scale.unsqueeze(1)).round().clamp(-127, 127));
    }

    /// <inheritdoc/>
    public void DecodeRows(Tensor codes, Tensor absmax, bool scaleFirst, Tensor target)
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var column = absmax.unsqueeze(1);
        const float step = (float)(1.0 / 127.0);
        var values = codes.to(ScalarType.Float32);
        target.copy_(scaleFirst ? values * (column * step) : values * column * step);
    }

    /// <inheritdoc/>
    public void ScaleProducts(Tensor products, Tensor rowScales, Tensor columnScales, float step, Tensor? bias, Tensor target)
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var values = products.to(ScalarType.Float32) * (rowScales.unsqueeze(1) * columnScales.unsqueeze(0)) * step;
        target.copy_(bias is null ? values : values + bias);
    }

    /// <summary>Block maxima into <paramref name="absmax"/>; the flat values over their block's maximum.</summary>
    private static Tensor Scale(Tensor source, int blockSize, Tensor absmax)
    {
        var flat = source.reshape(-1).to(ScalarType.Float32);
        long count = flat.shape[0], full = count - count % blockSize;
        var parts = new List<Tensor>();
        if (full > 0)
        {
            var blocks = flat[TensorIndex.Slice(0, full)].view(-1, blockSize);
            var maxima = blocks.abs().amax([1]);
            absmax.view(-1)[TensorIndex.Slice(0, full / blockSize)].copy_(maxima);
            parts.Add((blocks * maxima.clamp_min(BlockMaximum.Smallest).reciprocal().unsqueeze(1)).view(-1));
        }
        if (full < count)
        {
            var rest = flat[TensorIndex.Slice(full)];
            var maximum = rest.abs().amax([0]).clamp_min(BlockMaximum.Smallest);
            absmax.view(-1)[TensorIndex.Slice(full / blockSize)].copy_(maximum);
            parts.Add(rest / maximum);
        }
        return cat(parts);
    }

    /// <summary>The number of midpoints that a value is not at or below; NaN is above all.</summary>
    private static Tensor Nearest(Tensor scaled, Tensor midpoints)
    {
        var codes = zeros(scaled.shape, ScalarType.Int64, scaled.device);
        // In pieces: the comparison with all midpoints at once would take a gigabyte for an ordinary weight.
        const long piece = 1 << 18;
        for (long start = 0; start < scaled.shape[0]; start += piece)
        {
            using var scope = NewDisposeScope();
            var part = scaled[TensorIndex.Slice(start, Math.Min(scaled.shape[0], start + piece))];
            codes[TensorIndex.Slice(start, start + part.shape[0])].copy_(part.unsqueeze(1).le(midpoints).logical_not().sum(dim: 1L));
        }
        return codes;
    }

    private static Tensor Values(Tensor packed, BlockScales scales, FourBitTable table, int blockSize, long count)
    {
        var bytes = packed.view(-1).to(ScalarType.Int64);
        var codes = stack([bytes.bitwise_right_shift(4), bytes.bitwise_and(15)], 1).view(-1)[TensorIndex.Slice(0, count)];
        var absmax = scales.NestedAbsmax is null
            ? scales.Absmax
            : Blockwise(scales.Absmax, scales.NestedAbsmax, EightBitMap.DynamicSigned, BlockScales.NestedBlockSize, scales.NestedOffset);
        return tensor(table.Codes.ToArray(), device: packed.device)[codes] * Spread(absmax, blockSize, count);
    }

    private static Tensor Blockwise(Tensor codes, Tensor absmax, EightBitMap map, int blockSize, float offset)
    {
        var values = map.ToTensor().to(codes.device)[codes.view(-1).to(ScalarType.Int64)] * Spread(absmax, blockSize, codes.numel());
        return offset == 0f ? values : values + offset;
    }

    /// <summary>Each block's number for each of its values.</summary>
    private static Tensor Spread(Tensor absmax, int blockSize, long count)
        => absmax.view(-1).repeat_interleave(blockSize)[TensorIndex.Slice(0, count)];
}
