using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Quantization.Tests;

[Trait(Goldens.Trait, QuantGolden.Area), Trait("Level", "any")]
public sealed class LinearGoldenTests
{
    public static IEnumerable<TheoryDataRow<string>> FourBit() => QuantGolden.Rows("linear4");

    public static IEnumerable<TheoryDataRow<string>> Int8() => QuantGolden.Rows("int8");

    [Theory, MemberData(nameof(FourBit))]
    public void Four_bit_layer(string folder)
    {
        foreach (var level in KernelSelection.Supported)
        {
            using var forced = KernelSelection.Force(level);
            using var golden = new QuantGolden(folder);
            using var layer = QuantLayers.FourBit(golden);
            using var packed = layer.ToPacked();
            golden.Check("packed", packed.Codes);
            golden.Check("absmax", packed.Absmax);
            if (packed.DoubleQuantized)
            {
                golden.Check("nested_absmax", packed.NestedAbsmax!);
                golden.Check("nested_offset", tensor([packed.NestedOffset]));
            }
            golden.Check("dequant_compute", layer.MaterializeWeight(golden.Expected["dequant_compute"].dtype));
            CheckPasses(golden, layer);
        }
    }

    [Theory, MemberData(nameof(Int8))]
    public void Int8_layer(string folder)
    {
        foreach (var level in KernelSelection.Supported)
        {
            using var forced = KernelSelection.Force(level);
            using var golden = new QuantGolden(folder);
            using var layer = QuantLayers.Int8(golden);
            var kept = golden.Expected["SCB"].ne(0);
            golden.Check("CB", golden.Expected["CB"][kept], layer.Codes[kept], golden.Rule("CB"));
            golden.Check("SCB", layer.RowMaxima);
            golden.Check("weight_dequant", layer.MaterializeWeight(ScalarType.Float32));
            foreach (string input in Inputs(golden)) CheckParts(golden, layer, input);
            CheckPasses(golden, layer);
        }
    }

    private static void CheckParts(QuantGolden golden, Int8Linear layer, string input)
    {
        var rows = golden.Inputs[input].reshape(-1, layer.InFeatures);
        var (codes, absmax, outliers) = RowwiseInt8Codec.Encode(rows, layer.Threshold);
        golden.Check("CA_" + input, codes);
        golden.Check("SCA_" + input, absmax);
        if (golden.Expected.ContainsKey("outlier_cols_" + input)) golden.Check("outlier_cols_" + input, outliers!);
        if (golden.Expected.ContainsKey("subA_" + input)) golden.Check("subA_" + input, rows.index_select(1, outliers!));
        var products = Int8MatMul.Multiply(codes, layer.Codes);
        golden.Check("int32_" + input, products);
        golden.Check("mm_dequant_fp16_" + input, Int8MatMul.Rescale(products, absmax, layer.RowMaxima, layer.BiasTensor, ScalarType.Float16));
    }

    /// <summary>Forward and backward of each recorded input.</summary>
    private static void CheckPasses(QuantGolden golden, Peft.Core.FrozenLinear layer)
    {
        foreach (string input in Inputs(golden))
        {
            using var scope = NewDisposeScope();
            layer.BiasTensor?.requires_grad_(golden.Expected.ContainsKey("dbias_" + input));
            layer.zero_grad();
            var x = golden.Inputs[input].clone().requires_grad_(true);
            var y = layer.call(x);
            golden.Check("out_" + input, y);
            y.backward([golden.Inputs["grad_" + input]]);
            golden.Check("dx_" + input, x.grad!);
            if (golden.Expected.ContainsKey("dbias_" + input)) golden.Check("dbias_" + input, layer.BiasTensor!.grad!);
            using var noGrad = no_grad();
            golden.Check("out_" + input, layer.call(golden.Inputs[input]));
        }
    }

    private static IEnumerable<string> Inputs(QuantGolden golden)
        => golden.Inputs.Keys.Where(k => k.StartsWith('x') && golden.Expected.ContainsKey("out_" + k));
}
