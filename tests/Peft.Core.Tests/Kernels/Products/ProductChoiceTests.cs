using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

[Trait("Level", "any")]
public sealed class ProductChoiceTests
{
    [Fact]
    public void The_choice_follows_the_level()
    {
        foreach (var level in CpuLevels.Supported)
        {
            using var forced = CpuLevels.Force(level);
            Assert.Equal(level is CpuLevel.Avx2 or CpuLevel.Avx512 ? ProductEngine.Packed : ProductEngine.Libtorch, ProductChoice.For(ScalarType.BFloat16));
            Assert.Equal(level is CpuLevel.Avx2 ? ProductEngine.Packed : ProductEngine.Libtorch, ProductChoice.For(ScalarType.Float32));
            Assert.Equal(ProductEngine.Libtorch, ProductChoice.For(ScalarType.Float16));
            Assert.Contains($"{level}", string.Concat(ProductChoice.Describe()), StringComparison.Ordinal);
        }
    }

    [Fact]
    public void A_forced_engine_ends_with_its_scope()
    {
        var before = ProductChoice.For(ScalarType.Float32);
        using (ProductChoice.Force(ProductEngine.Libtorch))
        {
            Assert.Equal(ProductEngine.Libtorch, ProductChoice.For(ScalarType.BFloat16));
            Assert.Contains("forced", ProductChoice.Describe()[0], StringComparison.Ordinal);
        }
        Assert.Equal(before, ProductChoice.For(ScalarType.Float32));
    }

    [Fact]
    public void A_level_that_cannot_run_is_refused()
    {
        using var low = CpuLevels.Force(CpuLevel.Vector128);
        Assert.Contains("needs AVX2 with FMA; this process runs at Vector128. Use Libtorch.",
            Assert.Throws<ArgumentOutOfRangeException>(() => ProductChoice.Force(ProductEngine.Packed)).Message, StringComparison.Ordinal);
        if (CpuLevels.Process == CpuLevel.Avx512Bf16) return;
        Assert.Contains($"This process runs at most {CpuLevels.Process}.",
            Assert.Throws<ArgumentOutOfRangeException>(() => CpuLevels.Force(CpuLevel.Avx512Bf16)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void An_operand_of_another_dtype_is_refused()
    {
        using var halves = zeros(3, 4, ScalarType.Float16);
        Assert.Contains("takes float32, bfloat16 and int8, not Float16", Assert.Throws<ArgumentException>(() => MatrixMemory.Of(halves)).Message, StringComparison.Ordinal);
    }
}
