using Peft.Core;
using Peft.Llava;
using Peft.Quantization;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Training;

/// <summary>LLaVA's <c>--bits</c> flags, on the samples' base.</summary>
public sealed class KbitRecipeTests
{
    private static readonly string Data = Path.Combine(Repository.Root, "samples", "data");

    [Theory]
    [InlineData("--bits 4 --quant_type fp4 --double_quant False", "fp4", false)]
    [InlineData("--bits 4", "nf4", true)]
    public void Four_bits_store_the_decoder_and_leave_the_rest(string flags, string type, bool nested)
    {
        using var prepared = Prepare(flags);
        foreach (var (path, module) in ModuleTree.Modules(prepared.Model).Where(m => m.Module is FrozenLinear))
        {
            Assert.Equal(path.StartsWith("model.layers.", StringComparison.Ordinal), module is FourBitLinear);
            if (module is not FourBitLinear layer) continue;
            Assert.Equal(type, layer.QuantType.Name);
            Assert.Equal(nested, layer.DoubleQuantized);
            Assert.Equal(ScalarType.BFloat16, layer.ComputeDtype);
        }
        Assert.True(prepared.Model.GradientCheckpointing);
        Assert.All(prepared.Model.named_parameters().Where(p => p.name.Contains("norm", StringComparison.Ordinal)), p => Assert.Equal(ScalarType.Float32, p.parameter.dtype));
        Assert.All(prepared.Peft!.TrainableParameters(), p => Assert.Equal(ScalarType.BFloat16, p.Parameter.dtype));
    }

    [Fact]
    public void Eight_bits_store_the_decoder_in_int8()
    {
        using var prepared = Prepare("--bits 8");
        Assert.Equal(28, prepared.Model.modules().OfType<Int8Linear>().Count());
        Assert.Empty(prepared.Model.modules().OfType<FourBitLinear>());
    }

    [Theory]
    [InlineData("")]
    [InlineData("--bits 4")]
    [InlineData("--bits 8")]
    public void The_flag_fp16_trains_float32_adapters_on_a_float16_base(string bits)
    {
        string output = Directory.CreateTempSubdirectory("fp16-").FullName;
        var arguments = LlavaCommandLine.Parse(
        [
            "--model_name_or_path", Path.Combine(Data, "base"), "--data_path", Path.Combine(Data, "card_train.json"), "--image_folder", Data, "--output_dir", output,
            "--version", "v1", "--lora_enable", "True", "--fp16", "True", "--lora_r", "3", "--max_steps", "6", "--per_device_train_batch_size", "2", "--learning_rate", "2e-3",
            "--save_strategy", "no", "--mm_use_im_patch_token", "False", "--gradient_checkpointing", "True", .. bits.Split(' ', StringSplitOptions.RemoveEmptyEntries),
        ]);
        using var prepared = LlavaRecipe.PrepareModel(arguments);
        Assert.Equal(ScalarType.Float16, prepared.Model.Dtype);
        var watch = new Watch();
        using var trainer = prepared.TrainerFor(LlavaRecipe.PrepareData(arguments, prepared.Model), arguments.Training, watch);
        Assert.All(trainer.Groups.SelectMany(g => g.Parameters), p => Assert.Equal(ScalarType.Float32, p.Parameter.dtype));
        Assert.Contains(trainer.Groups.SelectMany(g => g.Parameters), p => p.Name.Contains("mm_projector", StringComparison.Ordinal));
        trainer.Train();
        Assert.Equal(65536, watch.Reports[0].LossScale);
        Assert.All(watch.Reports, r => Assert.True(double.IsFinite(r.Loss)));
        Assert.True(trainer.SkippedSteps < 4, $"{trainer.SkippedSteps} steps were skipped");
        Directory.Delete(output, recursive: true);
    }

    private static PreparedModel Prepare(string flags) => LlavaRecipe.PrepareModel(LlavaCommandLine.Parse(
    [
        "--model_name_or_path", Path.Combine(Data, "base"), "--data_path", Path.Combine(Data, "card_train.json"), "--output_dir", "out", "--version", "v1",
        "--lora_enable", "True", "--bf16", "True", "--gradient_checkpointing", "True", .. flags.Split(' '),
    ]));
}
