using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Quantization.Tests;

[Trait(Goldens.Trait, QuantGolden.Area)]
public sealed class CodecGoldenTests
{
    public static IEnumerable<TheoryDataRow<string>> Maps() => QuantGolden.Rows("maps");

    public static IEnumerable<TheoryDataRow<string>> FourBit() => QuantGolden.Rows("quant4");

    public static IEnumerable<TheoryDataRow<string>> EightBit() => QuantGolden.Rows("block8");

    [Theory, MemberData(nameof(Maps))]
    public void Code_tables(string folder)
    {
        using var golden = new QuantGolden(folder);
        golden.Check("nf4_code", tensor(FourBitTable.For(QuantType.Nf4).Codes.ToArray()));
        golden.Check("fp4_code", tensor(FourBitTable.For(QuantType.Fp4).Codes.ToArray()));
        golden.Check("fp4_reference_order", tensor(FourBitTable.For(QuantType.Fp4).Order.ToArray()).to(ScalarType.Int64));
        golden.Check("dynamic_signed", EightBitMap.DynamicSigned.ToTensor());
        golden.Check("dynamic_unsigned", EightBitMap.DynamicUnsigned.ToTensor());
        golden.Check("linear_signed", EightBitMap.LinearSigned.ToTensor());
        golden.Check("linear_unsigned", EightBitMap.LinearUnsigned.ToTensor());
    }

    [Theory, MemberData(nameof(FourBit))]
    public void Four_bit_weights(string folder)
    {
        foreach (var level in KernelSelection.Supported)
        {
            using var forced = KernelSelection.Force(level);
            using var golden = new QuantGolden(folder);
            var type = new QuantType(golden.String("quant_type"));
            int blockSize = golden.Int("blocksize");
            bool nested = golden.Flag("double_quant");
            var weight = golden.Inputs["weight"];
            bool finite = weight.to(ScalarType.Float32).isfinite().all().ToBoolean();
            using var packed = new FourBitCodec(type, blockSize, nested).Encode(weight, allowNonFinite: !finite);

            // Storage in another dtype is the same bytes under another name.
            golden.Expected["packed"] = QuantGolden.AsBytes(golden.Expected["packed"]);
            golden.Check("packed", packed.Codes);
            golden.Check("code", tensor(FourBitTable.For(type).Codes.ToArray()));
            if (nested)
            {
                golden.Check("nested_code", EightBitMap.DynamicSigned.ToTensor());
                golden.Check("nested_offset", tensor([packed.NestedOffset]));
                using var plain = new FourBitCodec(type, blockSize).Encode(weight);
                golden.Check("absmax_unnested", plain.Absmax);
                // From the recorded offset: a mean summed in another order would move a code on a boundary.
                var (absmax, nestedAbsmax) = FourBitCodec.NestCodes(plain.Absmax, golden.Expected["nested_offset"].item<float>());
                golden.Check("absmax", absmax);
                golden.Check("nested_absmax", nestedAbsmax);
            }
            else
            {
                golden.Check("absmax", packed.Absmax);
            }
            CheckDecoding(golden, type, blockSize, nested);
        }
    }

    [Theory, MemberData(nameof(EightBit))]
    public void Eight_bit_blocks(string folder)
    {
        foreach (var level in KernelSelection.Supported)
        {
            using var forced = KernelSelection.Force(level);
            using var golden = new QuantGolden(folder);
            var map = golden.Flag("signed") ? EightBitMap.DynamicSigned : EightBitMap.DynamicUnsigned;
            var codec = new BlockwiseCodec(map, golden.Int("blocksize"));
            golden.Check("map", map.ToTensor());
            var (codes, absmax) = codec.Encode(golden.Inputs["x"]);
            golden.Check("codes", codes);
            golden.Check("absmax", absmax);
            foreach (var (name, expected) in golden.Expected.Where(e => e.Key.StartsWith("dequant_", StringComparison.Ordinal)))
                golden.Check(name, codec.Decode(golden.Expected["codes"], golden.Expected["absmax"], expected.dtype));
        }
    }

    /// <summary>From the recorded codes and statistics, as the case asks.</summary>
    private static void CheckDecoding(QuantGolden golden, QuantType type, int blockSize, bool nested)
    {
        var shape = golden.Settings.GetProperty("shape").EnumerateArray().Select(e => e.GetInt64()).ToArray();
        using var recorded = new PackedWeight(
            golden.Expected["packed"].clone(), golden.Expected["absmax"].clone(),
            nested ? golden.Expected["nested_absmax"].clone() : null, nested ? golden.Expected["nested_offset"].item<float>() : 0f,
            type, blockSize, QuantGolden.Dtype(golden.String("dtype")), shape);
        if (nested) golden.Check("absmax_dequant", FourBitCodec.BlockMaxima(recorded));
        foreach (var (name, expected) in golden.Expected.Where(e => e.Key.StartsWith("dequant_", StringComparison.Ordinal)))
            golden.Check(name, FourBitCodec.Decode(recorded, expected.dtype));
    }
}
