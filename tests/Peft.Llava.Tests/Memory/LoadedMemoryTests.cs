using Peft.Core;
using Peft.Quantization;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Memory;

/// <summary>The estimate of a model in memory against the one of its configuration, and against its own tensors.</summary>
public sealed class LoadedMemoryTests
{
    private static readonly TrainingOptions Options = new() { BatchSize = 3, AccumulationSteps = 2, MaxLength = 37, Precision = TrainingPrecision.BFloat16 };

    private static readonly LoraConfig Lora = new()
    {
        Rank = 3, Alpha = 7, TargetModules = (string[])["q_proj", "v_proj", "down_proj"], ExcludeModules = TargetModules.Regex(".*vision_tower.*"),
    };

    public static IEnumerable<TheoryDataRow<string>> Kinds => [new("none"), new("nf4"), new("nf4 plain"), new("fp4"), new("int8")];

    [Theory, MemberData(nameof(Kinds))]
    public void A_model_is_estimated_as_its_configuration_is_however_it_is_stored(string kind)
    {
        var quantization = Quantization(kind);
        using var tiny = TinyLlava.Create(dtype: ScalarType.BFloat16);
        if (quantization is not null) new ModelQuantizer(quantization).Quantize(tiny.Model);
        var planned = tiny.Model.Config.EstimateMemory(Options, new MemoryAssumptions { Lora = Lora, Quantization = quantization });
        Assert.Equal(planned.ToString(), tiny.Model.EstimateMemory(Options, new MemoryAssumptions { Lora = Lora }).ToString());
        Assert.Equal(planned.Moments, tiny.Model.EstimateMemory(Options, new MemoryAssumptions { Lora = Lora }).Moments);

        // Adapters that it carries change nothing.
        using var peft = tiny.Model.GetPeftModel(Lora);
        Assert.Equal(planned.Moments, tiny.Model.EstimateMemory(Options, new MemoryAssumptions { Lora = Lora }).Moments);
    }

    [Fact]
    public void What_was_cast_counts_as_it_is_now()
    {
        using var tiny = TinyLlava.Create(dtype: ScalarType.BFloat16);
        new ModelQuantizer(QuantizationConfig.Nf4(ScalarType.Float32)).Quantize(tiny.Model);
        var assumptions = new MemoryAssumptions { Lora = Lora };
        var before = tiny.Model.EstimateMemory(Options, assumptions).Peak;
        var report = tiny.Model.PrepareModelForKbitTraining();
        Assert.True(report.AddedBytes > 0);
        Assert.Equal(before.Base + report.AddedBytes, tiny.Model.EstimateMemory(Options, assumptions).Peak.Base);
        // The largest packed weight, the MLP's, is decoded into float32.
        long stored = tiny.Model.named_parameters().Sum(p => p.parameter.numel() * p.parameter.element_size()) + tiny.Model.modules().OfType<FourBitLinear>().Sum(l => l.StoredBytes);
        Assert.Equal(stored + 32 * 56 * 4, tiny.Model.EstimateMemory(Options, assumptions).Peak.Base);
    }

    [Fact]
    public void A_projector_of_another_dtype_is_trained_in_its_own()
    {
        using var source = TinyLlava.Create(dtype: ScalarType.BFloat16);
        long projector = source.Model.Parameters(ModelPart.Projector).Sum(p => p.Parameter.numel());
        var options = Options with { Trainable = TrainableParts.ProjectorOnly() };
        var narrow = source.Model.EstimateMemory(options).Peak;
        Assert.Equal(2 * 2 * projector, narrow.Optimizer);
        source.Model.Projector!.to(ScalarType.Float32);
        var wide = source.Model.EstimateMemory(options).Peak;
        Assert.Equal((2 * 4 * projector, 4 * projector, narrow.Base + 2 * projector), (wide.Optimizer, wide.Gradients, wide.Base));
    }

    /// <summary>The model as a float16 training wants it, against what its configuration says of such a training.</summary>
    [Fact]
    public void A_float32_projector_beside_a_float16_base_is_planned_as_it_is_loaded()
    {
        using var tiny = TinyLlava.Create(dtype: ScalarType.Float16);
        tiny.Model.Projector!.to(ScalarType.Float32);
        var options = Options with { Precision = TrainingPrecision.Float16 };
        var assumptions = new MemoryAssumptions { Lora = Lora };
        Assert.Equal(tiny.Model.EstimateMemory(options, assumptions).Moments, tiny.Model.Config.EstimateMemory(options, assumptions).Moments);
    }

    [Fact]
    public void How_a_loaded_base_is_stored_is_not_assumed()
    {
        using var tiny = TinyLlava.Create();
        foreach (var assumptions in new[] { new MemoryAssumptions { Quantization = QuantizationConfig.Nf4() }, new MemoryAssumptions { BaseDtype = ScalarType.Float16 } })
        {
            var e = Assert.Throws<TrainingOptionsException>(() => tiny.Model.EstimateMemory(Options, assumptions));
            Assert.Contains("BaseDtype and Quantization of a loaded model are its own; leave them out of the assumptions, or estimate from its Config", e.Message, StringComparison.Ordinal);
        }
    }

    private static QuantizationConfig? Quantization(string kind) => kind switch
    {
        "nf4" => QuantizationConfig.Nf4(ScalarType.BFloat16),
        "nf4 plain" => QuantizationConfig.Nf4(doubleQuantization: false),
        "fp4" => QuantizationConfig.Fp4(),
        "int8" => QuantizationConfig.Int8(),
        _ => null,
    };
}
