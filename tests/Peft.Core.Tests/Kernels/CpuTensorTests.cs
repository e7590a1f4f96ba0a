using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

public sealed unsafe class CpuTensorTests
{
    [Fact]
    public void The_pointer_reads_what_the_tensor_holds()
    {
        using var t = arange(5, dtype: ScalarType.Float32);
        Assert.Equal(3f, ((float*)CpuTensor.Pointer(t))[3]);
    }

    [Fact]
    public void A_strided_tensor_is_refused_with_its_strides()
    {
        using var t = arange(6, dtype: ScalarType.Float32).view(2, 3);
        using var transposed = t.t();
        var e = Assert.Throws<ArgumentException>(() => (IntPtr)CpuTensor.Pointer(transposed));
        Assert.Contains("strides (1, 3) for shape (3, 2). Call cpu().contiguous() first.", e.Message);
    }

    [Theory]
    [InlineData(1.00390625f, 0x3f80), InlineData(1.01171875f, 0x3f82), InlineData(-0.1f, 0xbdcd), InlineData(float.NaN, 0x7fc0), InlineData(float.PositiveInfinity, 0x7f80)]
    public void Rounding_to_bfloat16_is_to_nearest_even(float value, int bits)
    {
        ushort target;
        BFloat16Element.Set(&target, 0, value);
        Assert.Equal(bits, target);
    }
}
