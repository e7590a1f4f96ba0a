using Peft.Core;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Quantization;

/// <summary>What <see cref="LoraInit.Loftq"/> fits its factors to: NF4 in blocks of 64 without double quantisation, as PEFT does.</summary>
public sealed class LoftqQuantizer : ILoftqQuantizer
{
    private static readonly FourBitCodec Codec = new(QuantType.Nf4);

    /// <inheritdoc/>
    /// <exception cref="QuantizationConfigException">Bits other than 4.</exception>
    public Tensor Approximate(Tensor weight, int bits)
    {
        ArgumentNullException.ThrowIfNull(weight);
        if (bits != 4) throw new QuantizationConfigException("loftq_config", [$"loftq_bits is {bits}, and only 4 (NF4) is there"]);
        using var packed = Codec.Encode(weight);
        return FourBitCodec.Decode(packed, weight.dtype).DetachFromDisposeScope();
    }
}
