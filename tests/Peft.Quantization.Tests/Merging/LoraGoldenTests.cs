using Peft.Core;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Quantization.Tests;

[Trait(Goldens.Trait, QuantGolden.Area)]
public sealed class LoraGoldenTests
{
    public static IEnumerable<TheoryDataRow<string>> Cases() => QuantGolden.Rows("lora4", "lora8");

    [Theory, MemberData(nameof(Cases))]
    public void Lora_over_a_quantised_layer(string folder)
    {
        using var golden = new QuantGolden(folder);
        using var scope = NewDisposeScope();
        bool fourBit = golden.Case.Kind == "lora4";
        using FrozenLinear layer = fourBit ? QuantLayers.FourBit(golden) : QuantLayers.Int8(golden);
        if (layer is Int8Linear int8) int8.Rescaling = Int8Rescaling.BitsandbytesCpu;
        CheckState(golden, "base_", layer);
        golden.Check("base_dequant", layer.MaterializeWeight(golden.Expected["base_dequant"].dtype));
        golden.Check("base_out", layer.call(golden.Inputs["x"]));

        using var model = new OneLayer(layer);
        using var peft = model.GetPeftModel(new LoraConfig
        {
            Rank = golden.Int("r"), Alpha = golden.Double("alpha"), UseRsLora = golden.Flag("rslora"), TargetModules = new[] { "fc" },
        }, options: new AdapterOptions { UpcastToFloat32 = golden.Inputs["lora_A"].dtype == ScalarType.Float32 });
        var lora = Assert.IsType<LoraLinear>(peft.Layers.Single());
        var adapter = lora.Adapters["default"];
        Set(adapter.A, golden.Inputs["lora_A"]);
        Set(adapter.B, golden.Inputs["lora_B"]);
        model.train();

        // An adapter of another dtype than the base's can only be had as one in fp32 that computes in the input's.
        if (golden.Inputs["lora_A"].dtype != adapter.A.dtype) peft.Precision = AdapterPrecision.BaseDtype;
        var x = golden.Inputs["x"].clone().requires_grad_(true);
        var y = model.call(x);
        golden.Check("out", y);
        y.backward([golden.Inputs["grad_out"]]);
        golden.Check("dx", x.grad!);
        golden.Check("dA", adapter.A.grad!.to(golden.Expected["dA"].dtype));
        golden.Check("dB", adapter.B.grad!.to(golden.Expected["dB"].dtype));

        using var noGrad = no_grad();
        var delta = lora.DeltaWeight("default").to(golden.Expected["delta"].dtype);
        golden.Check("delta", delta);
        var sum = layer.MaterializeWeight(fourBit ? layer.WeightDtype : ScalarType.Float32);
        sum = fourBit ? sum + delta : sum.to(delta.dtype) + delta;
        golden.Check("merged_before_requantize", sum);

        peft.Unload();
        layer.OverwriteWeight(golden.Expected["merged_before_requantize"]);
        CheckState(golden, "merged_", layer);
        golden.Check("merged_out", model.call(golden.Inputs["x"]));
    }

    /// <summary>The stored tensors, from the recorded sum where they were quantised from it.</summary>
    private static void CheckState(QuantGolden golden, string prefix, FrozenLinear layer)
    {
        if (layer is Int8Linear int8)
        {
            Compare(golden, prefix + "CB", int8.Codes);
            Compare(golden, prefix + "SCB", int8.RowMaxima);
            return;
        }
        using var packed = ((FourBitLinear)layer).ToPacked();
        Compare(golden, prefix + "packed", packed.Codes);
        Compare(golden, prefix + "absmax", packed.Absmax);
        if (packed.DoubleQuantized)
        {
            Compare(golden, prefix + "nested_absmax", packed.NestedAbsmax!);
            Compare(golden, prefix + "nested_offset", tensor([packed.NestedOffset]));
        }
        if (prefix == "merged_") Compare(golden, "merged_dequant", FourBitCodec.Decode(packed, golden.Expected["merged_dequant"].dtype));
    }

    private static void Compare(QuantGolden golden, string name, Tensor got)
    {
        if (!golden.Rule(name).TryGetProperty("exact_from", out _))
        {
            golden.Check(name, got);
            return;
        }
        var expected = golden.Expected[name];
        bool zeros = name.EndsWith("packed", StringComparison.Ordinal) && golden.StringOrNull("quant_type") == "fp4";
        Assert.True(
            zeros ? QuantGolden.SameBytes(QuantGolden.WithoutZeroSign(expected), QuantGolden.WithoutZeroSign(got)) : QuantGolden.SameBytes(expected, got),
            $"{golden.Case.Name}: {name} made from the recorded sum differs.");
    }

    private static void Set(Tensor parameter, Tensor value)
    {
        using var noGrad = no_grad();
        parameter.copy_(value);
    }
}
