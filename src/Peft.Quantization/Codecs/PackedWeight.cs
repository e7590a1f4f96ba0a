using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Quantization;

/// <summary>A 4-bit weight: codes, block statistics and what is needed to read them.</summary>
/// <remarks>Owns its tensors, which are detached from dispose scopes.</remarks>
public sealed class PackedWeight : IDisposable
{
    /// <summary>Puts the parts of a packed weight together and checks that they fit each other.</summary>
    /// <param name="codes">ceil(n / 2) bytes, shape (ceil(n / 2), 1); ownership is taken.</param>
    /// <param name="absmax">(blocks) fp32, or uint8 with double quantisation; ownership is taken.</param>
    /// <param name="nestedAbsmax">(ceil(blocks / 256)) fp32 with double quantisation, else null; ownership is taken.</param>
    /// <param name="nestedOffset">The mean of the block maxima with double quantisation, else 0.</param>
    /// <param name="type">The code.</param>
    /// <param name="blockSize">Values per block.</param>
    /// <param name="dtype">The dtype of the original weight.</param>
    /// <param name="shape">The shape of the original weight.</param>
    /// <param name="name">What messages call the weight.</param>
    /// <exception cref="QuantStateException">The parts do not fit each other.</exception>
    /// <exception cref="UnsupportedBlockSizeException">No such block size.</exception>
    /// <exception cref="UnsupportedQuantTypeException">No such code.</exception>
    public PackedWeight(
        Tensor codes, Tensor absmax, Tensor? nestedAbsmax, float nestedOffset, QuantType type, int blockSize, ScalarType dtype,
        IReadOnlyList<long> shape, string name = "weight")
    {
        ArgumentNullException.ThrowIfNull(codes);
        ArgumentNullException.ThrowIfNull(absmax);
        ArgumentNullException.ThrowIfNull(shape);
        FourBitCodec.RequireBlockSize(blockSize);
        _ = FourBitTable.For(type);
        _ = FloatElements.KindOf(dtype);
        long count = shape.Aggregate(1L, (product, side) => product * side);
        long blocks = (count + blockSize - 1) / blockSize;
        Require(name, "codes", codes, ScalarType.Byte, (count + 1) / 2);
        Require(name, "absmax", absmax, nestedAbsmax is null ? ScalarType.Float32 : ScalarType.Byte, blocks);
        if (nestedAbsmax is not null)
            Require(name, "nested_absmax", nestedAbsmax, ScalarType.Float32, (blocks + BlockScales.NestedBlockSize - 1) / BlockScales.NestedBlockSize);
        Codes = codes.DetachFromDisposeScope();
        Absmax = absmax.DetachFromDisposeScope();
        NestedAbsmax = nestedAbsmax?.DetachFromDisposeScope();
        NestedOffset = nestedOffset;
        Type = type;
        BlockSize = blockSize;
        Dtype = dtype;
        Shape = [.. shape];
    }

    /// <summary>(ceil(n / 2), 1) uint8; the first value of a pair is the high nibble. Owned by this object.</summary>
    public Tensor Codes { get; }

    /// <summary>(blocks) fp32 block maxima, or their uint8 codes. Owned by this object.</summary>
    public Tensor Absmax { get; }

    /// <summary>(ceil(blocks / 256)) fp32, or null without double quantisation. Owned by this object.</summary>
    public Tensor? NestedAbsmax { get; }

    /// <summary>The mean of the block maxima, taken off before they were quantised.</summary>
    public float NestedOffset { get; }

    /// <summary>The code.</summary>
    public QuantType Type { get; }

    /// <summary>Values per block.</summary>
    public int BlockSize { get; }

    /// <summary>The dtype of the original weight.</summary>
    public ScalarType Dtype { get; }

    /// <summary>The shape of the original weight.</summary>
    public IReadOnlyList<long> Shape { get; }

    /// <summary>Whether the block maxima are quantised too.</summary>
    public bool DoubleQuantized => NestedAbsmax is not null;

    /// <summary>Bytes of codes and statistics.</summary>
    public long StoredBytes => Codes.numel() + Absmax.numel() * Absmax.element_size() + (NestedAbsmax is null ? 0 : NestedAbsmax.numel() * 4 + 4);

    internal BlockScales Scales => new(Absmax, NestedAbsmax, NestedOffset);

    /// <inheritdoc/>
    public void Dispose()
    {
        Codes.Dispose();
        Absmax.Dispose();
        NestedAbsmax?.Dispose();
    }

    private static void Require(string name, string part, Tensor tensor, ScalarType dtype, long count)
    {
        if (tensor.dtype != dtype)
            throw new QuantStateException(name, $"{part} is {tensor.dtype}, expected {dtype}.");
        if (tensor.numel() != count)
            throw new QuantStateException(name, $"{part} has {tensor.numel()} entries, expected {count}: it is truncated or belongs to another weight.");
    }
}
