using Peft.Core;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Quantization.Tests;

public sealed class Int8LinearTests
{
    [Fact]
    public void Casting_the_module_leaves_codes_and_statistics_alone_and_casts_the_bias()
    {
        using var scope = NewDisposeScope();
        using var layer = Int8Linear.Quantize(randn(9, 70), randn(9));
        var before = layer.MaterializeWeight(ScalarType.Float32);
        layer.to(ScalarType.BFloat16);
        Assert.Equal(ScalarType.BFloat16, layer.BiasTensor!.dtype);
        Assert.Equal(ScalarType.Float32, layer.RowMaxima.dtype);
        TensorAssert.Equal(before, layer.MaterializeWeight(ScalarType.Float32), "weight");
        layer.to(DeviceType.META);
        Assert.All(layer.state_dict().Values, t => Assert.Equal(DeviceType.META, t.device_type));
    }

    [Fact]
    public void Overwriting_quantises_again()
    {
        using var scope = NewDisposeScope();
        using var layer = Int8Linear.Quantize(randn(9, 71));
        var weight = randn(9, 71) * 2;
        layer.OverwriteWeight(weight);
        var (codes, absmax) = RowwiseInt8Codec.EncodeWeight(weight);
        TensorAssert.Equal(codes, layer.Codes, "codes");
        TensorAssert.Equal(absmax, layer.RowMaxima, "SCB");
    }

    [Fact]
    public void An_input_on_another_device_is_refused()
    {
        using var scope = NewDisposeScope();
        using var layer = Int8Linear.Quantize(randn(9, 70), name: "q_proj");
        var e = Assert.Throws<DeviceMismatchException>(() => layer.call(randn([2, 70], device: META)));
        Assert.Equal("q_proj: the packed weight is on cpu, the other tensor on meta. Move the layer or the tensor with .to(device).", e.Message);
        Assert.Contains("q_proj: the packed weight is on cpu, the other tensor on meta.", Assert.Throws<DeviceMismatchException>(() => layer.ApplyTransposed(randn([2, 9], device: META))).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Without_a_threshold_an_input_beyond_fp16_is_refused_and_with_one_it_is_computed()
    {
        using var scope = NewDisposeScope();
        using var layer = Int8Linear.Quantize(randn(9, 70), threshold: 0, name: "q_proj");
        var x = randn(2, 70);
        x[1, 3] = 70000;
        var e = Assert.Throws<ActivationRangeException>(() => layer.call(x));
        Assert.Equal("q_proj: the input holds NaN, infinity or a magnitude above fp16's 65504, and its row cannot be scaled to int8 (threshold 0). "
            + "Look for what overflowed before this layer, or set a threshold such as 6, which computes large entries in floating point.", e.Message);
        layer.Threshold = 6;
        TensorAssert.Close(nn.functional.linear(x, layer.MaterializeWeight(ScalarType.Float32)), layer.call(x), 0.5, 1e-3, "output");
        x[0, 0] = float.NaN;
        Assert.Contains("cannot be scaled to int8 (threshold 6)", Assert.Throws<ActivationRangeException>(() => layer.call(x)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Codes_and_maxima_that_do_not_fit_are_refused()
    {
        using var scope = NewDisposeScope();
        var e = Assert.Throws<QuantStateException>(() => new Int8Linear(zeros([3, 4], ScalarType.Byte), zeros([3]), name: "up_proj"));
        Assert.StartsWith("up_proj: the codes are Byte (3, 4), expected Int8 (out, in).", e.Message, StringComparison.Ordinal);
        e = Assert.Throws<QuantStateException>(() => new Int8Linear(zeros([3, 4], ScalarType.Int8), zeros([2]), name: "up_proj"));
        Assert.StartsWith("up_proj: SCB is Float32 with 2 entries, expected Float32 with 3.", e.Message, StringComparison.Ordinal);
        Assert.Contains("bias: expected shape (3), got (4).", Assert.Throws<ShapeMismatchException>(() => new Int8Linear(zeros([3, 4], ScalarType.Int8), zeros([3]), zeros([4]))).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Steps_leave_no_tensor_behind()
    {
        using var layer = Int8Linear.Quantize(randn(30, 70), randn(30), threshold: 2);
        LeakGuard.AssertFlat(20, () =>
        {
            using var scope = NewDisposeScope();
            var x = randn(3, 70, requires_grad: true);
            layer.call(x).sum().backward();
        });
    }
}
