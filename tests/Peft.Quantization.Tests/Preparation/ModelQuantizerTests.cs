using Peft.Core;
using Peft.Llava;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Quantization.Tests;

public sealed class ModelQuantizerTests
{
    [Fact]
    public void A_model_is_quantised_in_place_as_planned()
    {
        using var scope = NewDisposeScope();
        using var model = new OneLayer(new DenseFrozenLinear(randn(33, 70), randn(33)));
        using var twin = new OneLayer(nn.Linear(70, 33));
        var quantizer = new ModelQuantizer(QuantizationConfig.Nf4());
        var plan = quantizer.Plan(model);
        Assert.Equal("nf4       1 x fc (33, 70): 0.01 MiB -> 0 MiB\nlinear weights: 0.01 MiB -> 0 MiB", plan.ToString());
        quantizer.Quantize(model);
        quantizer.Quantize(twin);
        var layer = Assert.IsType<FourBitLinear>(model.Layer);
        Assert.IsType<FourBitLinear>(twin.Layer);
        Assert.Equal(layer.StoredBytes, plan.Bytes);
        Assert.Equal(33, layer.BiasTensor!.numel());
        Assert.Empty(quantizer.Plan(model).Layers);
        model.call(randn(3, 70));
    }

    [Theory]
    [InlineData(4, false)]
    [InlineData(4, true)]
    [InlineData(8, false)]
    public void The_plan_s_bytes_are_those_that_are_stored(int bits, bool nested)
    {
        using var scope = NewDisposeScope();
        using var model = new OneLayer(new DenseFrozenLinear(randn(133, 71)));
        var plan = new ModelQuantizer(new QuantizationConfig { Bits = bits, DoubleQuantization = nested }).Quantize(model);
        Assert.Equal(((FrozenLinear)model.Layer).StoredBytes, plan.Bytes);
        Assert.Equal(133 * 71 * 4, plan.DenseBytes);
    }

    [Fact]
    public void Layers_of_the_skip_list_stay_as_they_are()
    {
        using var scope = NewDisposeScope();
        using var model = new OneLayer(new DenseFrozenLinear(randn(33, 70)));
        var plan = new ModelQuantizer(QuantizationConfig.Int8() with { SkipModules = ["fc"] }).Quantize(model);
        Assert.IsType<DenseFrozenLinear>(model.Layer);
        Assert.StartsWith("dense     1 x fc (33, 70)", plan.ToString(), StringComparison.Ordinal);
    }

    [Fact]
    public void Loading_in_4_bits_leaves_projector_tower_and_head_dense()
    {
        string folder = TinyCheckpoint();
        using var model = LlavaModel.Load(folder, new LlavaLoadOptions { Quantization = QuantizationConfig.Nf4(ScalarType.BFloat16), Dtype = ScalarType.BFloat16 });
        foreach (var (path, module) in ModuleTree.Modules(model).Where(m => m.Module is FrozenLinear))
            Assert.Equal(path.StartsWith("model.layers.", StringComparison.Ordinal), module is FourBitLinear);
    }

    [Fact]
    public void A_quantised_checkpoint_is_not_quantised_again()
    {
        string folder = new GoldenCase(Goldens.Cases(QuantGolden.Area).First(c => c.Kind == "checkpoint").Folder).PathOf("quantized");
        var e = Assert.Throws<QuantizationConfigException>(() => LlavaModel.Load(folder, new LlavaLoadOptions { Quantization = QuantizationConfig.Nf4() }));
        Assert.Equal($"{Path.Combine(folder, "config.json")}: the checkpoint is quantised already; load it without Quantization, or take the original. "
            + "Correct the quantisation settings.", e.Message);
    }

    [Fact]
    public void A_checkpoint_without_a_layer_s_quant_state_is_refused_before_anything_is_built()
    {
        using var scope = NewDisposeScope();
        var golden = Goldens.Cases(QuantGolden.Area).First(c => c.Name == "checkpoint-llama-nf4-dq-bf16");
        string folder = Directory.CreateTempSubdirectory().FullName;
        File.Copy(golden.PathOf("quantized/config.json"), Path.Combine(folder, "config.json"));
        using (var reader = golden.Tensors("quantized/model.safetensors"))
        {
            SafetensorsWriter.Write(Path.Combine(folder, "model.safetensors"), reader.Entries.Keys
                .Where(k => k != "model.layers.1.mlp.up_proj.weight.quant_state.bitsandbytes__nf4").Select(k => new NamedTensor(k, reader.Load(k))).ToList());
        }
        var e = Assert.Throws<QuantStateException>(() => LlavaModel.Load(folder));
        Assert.StartsWith("model.layers.1.mlp.up_proj.weight: model.layers.1.mlp.up_proj.weight.quant_state.bitsandbytes__<type> is missing from ", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_weight_that_is_not_finite_is_named_by_its_path()
    {
        using var scope = NewDisposeScope();
        var weight = randn(33, 70);
        weight[3, 3] = float.NaN;
        using var model = new OneLayer(new DenseFrozenLinear(weight));
        var e = Assert.Throws<NonFiniteWeightException>(() => new ModelQuantizer(QuantizationConfig.Nf4()).Quantize(model));
        Assert.StartsWith("fc (33, 70) holds NaN at flat index 213;", e.Message, StringComparison.Ordinal);
        Assert.IsType<DenseFrozenLinear>(model.Layer);
    }

    private static string TinyCheckpoint() => Goldens.Cases(QuantGolden.Area).First(c => c.Kind == "checkpoint" && c.Name.Contains("llava", StringComparison.Ordinal)).PathOf("../_base_llava");
}
