using static TorchSharp.torch;

namespace Peft.Quantization.Tests;

/// <summary>Layers as a case describes them.</summary>
internal static class QuantLayers
{
    public static FourBitLinear FourBit(QuantGolden golden)
    {
        int blockSize = golden.Settings.TryGetProperty("blocksize", out var size) ? size.GetInt32() : 64;
        ScalarType? compute = golden.StringOrNull("compute") is { } name ? QuantGolden.Dtype(name) : null;
        return FourBitLinear.Quantize(
            new FourBitCodec(new QuantType(golden.String("quant_type")), blockSize, golden.Flag("double_quant")),
            golden.Inputs["weight"], golden.Inputs.GetValueOrDefault("bias")?.clone(), compute, name: golden.Case.Name);
    }

    public static Int8Linear Int8(QuantGolden golden)
        => Int8Linear.Quantize(
            golden.Inputs["weight"], golden.Inputs.GetValueOrDefault("bias")?.clone(), (float)golden.Double("threshold"), name: golden.Case.Name);
}
