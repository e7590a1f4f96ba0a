using CsCheck;
using Peft.Core;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Quantization.Tests;

public sealed class FourBitLinearTests
{
    private static readonly FourBitCodec Nested = new(QuantType.Nf4, 64, DoubleQuantization: true);

    [Fact]
    public void One_row_gives_what_the_decoded_weight_gives() => Gen.Select(Gen.Int[1, 60], Gen.Int[1, 200], Gen.Int[0, 1 << 20]).Sample(c =>
    {
        using var scope = NewDisposeScope();
        var (rows, columns, seed) = c;
        var generator = new Generator((ulong)seed);
        var type = seed % 2 == 0 ? QuantType.Nf4 : QuantType.Fp4;
        using var layer = FourBitLinear.Quantize(new FourBitCodec(type, 32, seed % 3 == 0), randn([rows, columns], generator: generator), randn([rows], generator: generator));
        var x = randn([1, columns], generator: generator);
        var twin = nn.functional.linear(x, layer.MaterializeWeight(ScalarType.Float32), layer.BiasTensor);
        foreach (var level in KernelSelection.Supported)
        {
            using var forced = KernelSelection.Force(level);
            TensorAssert.Close(twin, layer.Apply(x), 1e-5 * Math.Sqrt(columns), 1e-5, level.ToString());
        }
    }, iter: 40, threads: 1);

    [Fact]
    public void Casting_the_module_leaves_codes_and_statistics_alone_and_casts_the_bias()
    {
        using var scope = NewDisposeScope();
        using var layer = FourBitLinear.Quantize(Nested, randn(9, 70), randn(9), ScalarType.BFloat16);
        var before = layer.MaterializeWeight(ScalarType.Float32);
        layer.to(ScalarType.BFloat16);
        Assert.Equal(ScalarType.BFloat16, layer.BiasTensor!.dtype);
        TensorAssert.Equal(before, layer.MaterializeWeight(ScalarType.Float32), "weight");
        var state = layer.state_dict();
        Assert.Equal(["bias", "weight", "weight.absmax", "weight.nested_absmax", "weight.nested_offset"], state.Keys.Order());
        Assert.Equal(ScalarType.BFloat16, state["bias"].dtype);
        Assert.Equal(ScalarType.Float32, state["weight.nested_absmax"].dtype);
        Assert.Equal(ScalarType.Float32, state["weight.nested_offset"].dtype);
        Assert.Equal(ScalarType.Float32, layer.call(randn(3, 70)).dtype);
    }

    [Fact]
    public void The_state_dict_carries_all_that_the_weight_is_made_of()
    {
        using var scope = NewDisposeScope();
        using var one = FourBitLinear.Quantize(Nested, randn(9, 70), randn(9));
        using var other = FourBitLinear.Quantize(Nested, randn(9, 70) * 3 + 1, randn(9));
        other.load_state_dict(one.state_dict());
        TensorAssert.Equal(one.MaterializeWeight(ScalarType.Float32), other.MaterializeWeight(ScalarType.Float32), "weight");
    }

    [Fact]
    public void Moving_to_another_device_moves_all_state()
    {
        using var scope = NewDisposeScope();
        using var layer = FourBitLinear.Quantize(Nested, randn(9, 70), randn(9));
        layer.to(DeviceType.META);
        Assert.All(layer.state_dict().Values, t => Assert.Equal(DeviceType.META, t.device_type));
        Assert.Equal(DeviceType.META, layer.StorageDevice.type);
    }

    [Fact]
    public void An_input_or_gradient_on_another_device_is_refused()
    {
        using var scope = NewDisposeScope();
        using var layer = FourBitLinear.Quantize(Nested, randn(9, 70), name: "q_proj");
        var e = Assert.Throws<DeviceMismatchException>(() => layer.call(randn([2, 70], device: META)));
        Assert.Equal("q_proj: the packed weight is on cpu, the other tensor on meta. Move the layer or the tensor with .to(device).", e.Message);
        Assert.Contains("q_proj: the packed weight is on cpu, the other tensor on meta.", Assert.Throws<DeviceMismatchException>(() => layer.ApplyTransposed(randn([2, 9], device: META))).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Overwriting_quantises_again_with_the_same_settings_and_takes_the_new_dtype()
    {
        using var scope = NewDisposeScope();
        using var layer = FourBitLinear.Quantize(Nested, randn(9, 71, ScalarType.BFloat16));
        Assert.Equal(ScalarType.BFloat16, layer.WeightDtype);
        var weight = randn(9, 71) * 2;
        layer.OverwriteWeight(weight);
        using var expected = Nested.Encode(weight);
        using var got = layer.ToPacked();
        TensorAssert.Equal(expected.Codes, got.Codes, "codes");
        TensorAssert.Equal(expected.Absmax, got.Absmax, "absmax");
        Assert.Equal(expected.NestedOffset, got.NestedOffset);
        Assert.Equal(ScalarType.Float32, layer.WeightDtype);
        Assert.Contains("expected shape (9, 71), got (9, 70).", Assert.Throws<ShapeMismatchException>(() => layer.OverwriteWeight(randn(9, 70))).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_weight_or_bias_of_the_wrong_shape_is_refused()
    {
        using var scope = NewDisposeScope();
        var e = Assert.Throws<ShapeMismatchException>(() => FourBitLinear.Quantize(Nested, randn(9, 7), randn(8), name: "k_proj"));
        Assert.Equal("k_proj.bias: expected shape (9), got (8). Check that the tensor belongs to this layer of this model.", e.Message);
        Assert.Contains("got (9, 7, 2).", Assert.Throws<ShapeMismatchException>(() => FourBitLinear.Quantize(Nested, randn(9, 7, 2))).Message, StringComparison.Ordinal);
        Assert.Contains("dtype Float64 cannot be quantised from or computed in", Assert.Throws<UnsupportedWeightDtypeException>(() => FourBitLinear.Quantize(Nested, randn(9, 7), computeDtype: ScalarType.Float64)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Layers_share_one_buffer_and_steps_leave_no_tensor_behind()
    {
        using var workspace = new DecodeWorkspace();
        using var small = FourBitLinear.Quantize(Nested, randn(30, 70), workspace: workspace);
        using var large = FourBitLinear.Quantize(Nested, randn(90, 30), workspace: workspace);
        LeakGuard.AssertFlat(20, () =>
        {
            using var scope = NewDisposeScope();
            var x = randn(3, 70, requires_grad: true);
            large.call(small.call(x)).sum().backward();
            small.call(x[TensorIndex.Slice(0, 1)]).sum().backward();
        });
        // The packed product decodes panel by panel and needs no buffer.
        Assert.Equal(ProductChoice.For(ScalarType.Float32) == ProductEngine.Packed ? 0 : 90 * 30 * 4, workspace.HeldBytes);
        using (ProductChoice.Force(ProductEngine.Libtorch)) large.Apply(randn(3, 30)).Dispose();
        Assert.Equal(90 * 30 * 4, workspace.HeldBytes);
        workspace.Clear();
        Assert.Equal(0, workspace.HeldBytes);
    }

    [Fact]
    public void Several_threads_decode_at_the_same_time()
    {
        using var workspace = new DecodeWorkspace();
        using var layer = FourBitLinear.Quantize(Nested, randn(40, 70), workspace: workspace);
        using var x = randn(3, 70);
        using var expected = layer.Apply(x);
        Parallel.For(0, 8, _ =>
        {
            for (int i = 0; i < 20; i++)
            {
                using var scope = NewDisposeScope();
                TensorAssert.Equal(expected, layer.Apply(x), "output");
            }
        });
    }
}
