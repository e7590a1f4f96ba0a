using Peft.Core;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Quantization.Tests;

public sealed class QuantizedMergeTests
{
    public static TheoryData<bool, MergeTarget> Cases()
    {
        var data = new TheoryData<bool, MergeTarget>();
        foreach (var target in Enum.GetValues<MergeTarget>())
        {
            data.Add(true, target);
            data.Add(false, target);
        }
        return data;
    }

    [Theory, MemberData(nameof(Cases))]
    public void The_sum_is_made_in_fp32_and_stored_as_the_target_says(bool fourBit, MergeTarget target)
    {
        using var scope = NewDisposeScope();
        var original = randn(33, 70, ScalarType.BFloat16) * 0.1f;
        var (model, peft) = Adapted(fourBit, original);
        var layer = (LoraLinear)peft.Layers.Single();
        var decoded = layer.BaseLayer.MaterializeWeight(ScalarType.Float32);
        var delta = layer.DeltaWeight("default");
        var bias = layer.BaseLayer.BiasTensor!.clone();
        Assert.True(delta.abs().max().ToDouble() > 0.01);

        var report = peft.MergeAndUnload(target, ScalarType.Float32, path =>
        {
            Assert.Equal("fc", path);
            return original.clone();
        });

        var merged = (target == MergeTarget.OriginalBase ? original.to(ScalarType.Float32) : decoded) + delta;
        if (target == MergeTarget.Requantized)
        {
            using FrozenLinear expected = fourBit
                ? FourBitLinear.Quantize(new FourBitCodec(QuantType.Nf4, 64, true), merged)
                : Int8Linear.Quantize(merged);
            Assert.Equal(expected.GetType(), model.Layer.GetType());
            TensorAssert.Equal(expected.MaterializeWeight(ScalarType.Float32), ((FrozenLinear)model.Layer).MaterializeWeight(ScalarType.Float32), "weight");
            Assert.True(report.WorstRounding > 0.01);
        }
        else
        {
            var dense = Assert.IsType<DenseFrozenLinear>(model.Layer);
            TensorAssert.Equal(merged, dense.Weight, "weight");
            TensorAssert.Equal(bias, dense.BiasTensor!.detach(), "bias");
            Assert.True(report.WorstRounding < 1e-6);
        }
        Assert.Equal("fc", report.Layers.Single().Path);
    }

    [Fact]
    public void Dense_weights_get_the_dtype_asked_for()
    {
        using var scope = NewDisposeScope();
        var (model, peft) = Adapted(fourBit: true, randn(33, 70));
        var report = peft.MergeAndUnload(MergeTarget.DequantizedBase);
        Assert.Equal(ScalarType.BFloat16, ((DenseFrozenLinear)model.Layer).Weight.dtype);
        Assert.InRange(report.WorstRounding, 1e-6, 0.5);
    }

    [Fact]
    public void A_merge_that_would_not_be_finite_leaves_everything_as_it_was()
    {
        using var scope = NewDisposeScope();
        var (model, peft) = Adapted(fourBit: true, randn(33, 70));
        var layer = (LoraLinear)peft.Layers.Single();
        var before = layer.BaseLayer.MaterializeWeight(ScalarType.Float32);
        using (no_grad()) layer.Adapters["default"].B.fill_(float.NaN);
        Assert.Contains("tensor(s) hold NaN or infinity: ", Assert.Throws<NonFiniteWeightsException>(() => peft.MergeAndUnload(MergeTarget.DequantizedBase)).Message, StringComparison.Ordinal);
        Assert.Same(layer, model.Layer);
        TensorAssert.Equal(before, layer.BaseLayer.MaterializeWeight(ScalarType.Float32), "weight");
        Assert.Equal(ScalarType.Float32, layer.BaseLayer.WeightDtype);
    }

    [Fact]
    public void Merging_and_taking_out_again_leaves_the_codes_bit_for_bit()
    {
        using var scope = NewDisposeScope();
        foreach (bool fourBit in new[] { true, false })
        {
            var (_, peft) = Adapted(fourBit, randn(33, 70, ScalarType.BFloat16));
            var layer = ((LoraLinear)peft.Layers.Single()).BaseLayer;
            var before = layer.CopyStorage();
            // A change well above a 4-bit step: a smaller one can leave every code as it was.
            using (no_grad()) peft.Layers.Single().Adapters["default"].B.mul_(10);
            peft.Merge();
            Assert.False(before[0].eq(layer.CopyStorage()[0]).all().ToBoolean());
            peft.Unmerge();
            var after = layer.CopyStorage();
            for (int i = 0; i < before.Count; i++) TensorAssert.Equal(before[i], after[i], $"part {i}");
            Assert.Equal(ScalarType.BFloat16, layer.WeightDtype);
        }
    }

    [Fact]
    public void Every_quantised_layer_can_be_made_dense()
    {
        using var scope = NewDisposeScope();
        using var model = new OneLayer(Int8Linear.Quantize(randn(33, 70)));
        var weight = ((FrozenLinear)model.Layer).MaterializeWeight(ScalarType.Float32);
        Assert.Equal(1, QuantizedMerge.Dequantize(model, ScalarType.Float32));
        TensorAssert.Equal(weight, ((DenseFrozenLinear)model.Layer).Weight, "weight");
    }

    [Fact]
    public void A_target_that_cannot_be_is_refused()
    {
        using var scope = NewDisposeScope();
        var (_, peft) = Adapted(fourBit: true, randn(33, 70));
        var e = Assert.Throws<MergeTargetException>(() => peft.MergeAndUnload(MergeTarget.OriginalBase));
        Assert.Equal("Merging into the original base needs its weights: pass a function that gives a layer's weight by its path, or choose DequantizedBase.", e.Message);
        using var dense = new OneLayer(new DenseFrozenLinear(randn(33, 70)));
        var plain = dense.GetPeftModel(new LoraConfig { TargetModules = new[] { "fc" } });
        e = Assert.Throws<MergeTargetException>(() => plain.MergeAndUnload(MergeTarget.Requantized));
        Assert.Equal("The model has no quantised layer, so there is no choice of target: call MergeAndUnload without one.", e.Message);
    }

    private static (OneLayer Model, PeftModel Peft) Adapted(bool fourBit, Tensor weight)
    {
        FrozenLinear layer = fourBit
            ? FourBitLinear.Quantize(new FourBitCodec(QuantType.Nf4, 64, true), weight, randn(weight.shape[0]))
            : Int8Linear.Quantize(weight, randn(weight.shape[0]));
        var model = new OneLayer(layer);
        var peft = model.GetPeftModel(new LoraConfig { Rank = 4, Alpha = 10, TargetModules = new[] { "fc" } });
        using var noGrad = no_grad();
        peft.Layers.Single().Adapters["default"].B.copy_(randn(weight.shape[0], 4) * 0.1f);
        return (model, peft);
    }
}
