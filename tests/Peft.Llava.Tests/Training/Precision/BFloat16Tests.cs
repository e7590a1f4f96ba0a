using Peft.Core;
using Peft.Quantization;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Training;

/// <summary>What <see cref="TrainingPrecision.BFloat16"/> asks of a base.</summary>
[Collection(ProcessWideState.Name)]
public sealed class BFloat16Tests
{
    private const string Refusal = "Precision is BFloat16 and the base is in Float32, so that nothing would be computed in bfloat16; load it with LlavaLoadOptions.Dtype = ScalarType.BFloat16 "
        + "(adapters stay float32), prepare a quantised one with KbitCasts.NormsOnly, or set Precision to TrainingPrecision.Float32";

    [Fact]
    public void A_float32_base_is_refused_before_anything_changes()
    {
        using var run = new TinyRun();
        Assert.Equal([Refusal], Problems(() => new LLaVATrainer(run.Peft, run, Options(run))));
        Assert.False(run.Model.Parameters(ModelPart.Projector).First().Parameter.requires_grad);
        run.Peft.Dispose();
        Assert.Equal([Refusal], Problems(() => new LLaVATrainer(run.Model, run, Options(run) with { Trainable = TrainableParts.Full() })));
        new ModelQuantizer(QuantizationConfig.Int8()).Quantize(run.Model);
        Assert.Equal([Refusal], Problems(() => new LLaVATrainer(run.Model, run, Options(run) with { Trainable = TrainableParts.ProjectorOnly() })));
    }

    [Fact]
    public void Four_bit_layers_that_compute_in_bfloat16_may_have_a_float32_embedding()
    {
        using var run = new TinyRun();
        using var tiny = TinyLlava.Create(3, ScalarType.BFloat16);
        new ModelQuantizer(QuantizationConfig.Nf4(ScalarType.BFloat16)).Quantize(tiny.Model);
        tiny.Model.PrepareModelForKbitTraining(new KbitPreparationOptions { Casts = KbitCasts.EverythingAsPeft });
        Assert.Equal(ScalarType.Float32, tiny.Model.Dtype);
        using var peft = tiny.Model.GetPeftModel(new LoraConfig { Rank = 3, Alpha = 7, TargetModules = (string[])["q_proj"], ExcludeModules = TargetModules.Regex(".*vision_tower.*") });
        using var trainer = new LLaVATrainer(peft, run, Options(run));
        Assert.Equal(4, trainer.Train().Steps);
    }

    [Fact]
    public void On_a_bfloat16_base_products_are_bfloat16_and_adapters_stay_float32()
    {
        using var run = new TinyRun(dtype: ScalarType.BFloat16);
        ScalarType? outputs = null;
        var watch = new Watch
        {
            OnReport = _ =>
            {
                using var scope = NewDisposeScope();
                using var batch = run.Batch([0]);
                outputs = run.Model.Forward(batch, new ForwardOptions { Capture = Captures.Layers }).LayerOutputs![^1].dtype;
                Assert.Equal(AdapterPrecision.BaseDtype, run.Peft.Precision);
            },
        };
        using var trainer = new LLaVATrainer(run.Peft, run, Options(run), watch);
        Assert.True(trainer.Train().MeanLoss > 0);
        Assert.Equal(ScalarType.BFloat16, outputs);
        Assert.All(run.Peft.TrainableParameters().Where(p => p.Name.Contains("lora_", StringComparison.Ordinal)), p => Assert.Equal(ScalarType.Float32, p.Parameter.dtype));
    }

    private static TrainingOptions Options(TinyRun run) => run.Options with { Precision = TrainingPrecision.BFloat16 };

    private static IReadOnlyList<string> Problems(Func<LLaVATrainer> make) => Assert.Throws<TrainingOptionsException>(make).Problems;
}
