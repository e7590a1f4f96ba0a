using Peft.Core;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Quantization.Tests;

/// <summary>One token at a time: a few rows against a weight that is read in its stored form, compared with the float64 product of the decoded weight.</summary>
[Trait("Level", "any")]
public sealed class FewRowsTests
{
    public static TheoryData<CpuLevel, ScalarType, long, long, int> Cases()
    {
        var data = new TheoryData<CpuLevel, ScalarType, long, long, int>();
        foreach (var level in CpuLevels.Supported)
            foreach (var dtype in new[] { ScalarType.Float32, ScalarType.BFloat16 })
                foreach (var (rows, columns, block) in new[] { (1L, 192L, 64), (2, 320, 64), (3, 256, 128), (4, 128, 256), (1, 100, 64), (3, 71, 64), (5, 192, 64) })
                    data.Add(level, dtype, rows, columns, block);
        return data;
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void Four_bit_rows_equal_the_product_with_the_decoded_weight(CpuLevel level, ScalarType dtype, long rows, long columns, int block)
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        using var forced = CpuLevels.Force(level);
        foreach (var type in new[] { QuantType.Nf4, QuantType.Fp4 })
        {
            var (x, bias) = (randn(rows, columns).to(dtype), randn(45).to(dtype));
            using var layer = FourBitLinear.Quantize(new FourBitCodec(type, block, true), randn(45, columns).to(dtype), bias.clone());
            Check(x, layer, bias, dtype, $"{type}");
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void Integer_rows_do_not_depend_on_the_level(CpuLevel level, ScalarType dtype, long rows, long columns, int block)
    {
        Assert.True(block > 0);
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var (x, bias) = (randn(rows, columns).to(dtype), randn(45).to(dtype));
        using var layer = Int8Linear.Quantize(randn(45, columns).to(dtype), bias.clone());
        Tensor expected;
        using (ProductChoice.Force(ProductEngine.Libtorch)) expected = layer.Apply(x);
        using var forced = CpuLevels.Force(level);
        TensorAssert.Equal(expected, layer.Apply(x), "int8");
    }

    private static void Check(Tensor x, FrozenLinear layer, Tensor bias, ScalarType dtype, string what)
    {
        using var weight = layer.MaterializeWeight(dtype);
        var exact = x.to(ScalarType.Float64).matmul(weight.to(ScalarType.Float64).t()) + bias.to(ScalarType.Float64);
        // libtorch's bfloat16 product rounds its sum before it adds the bias.
        double rounding = dtype == ScalarType.BFloat16 ? 1.0 / 128 : 1e-6;
        TensorAssert.Close(exact, layer.Apply(x), dtype == ScalarType.BFloat16 ? 0.02 : 1e-4, rounding, what);
    }
}
