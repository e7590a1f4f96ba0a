using Peft.Core;
using Peft.Llava;
using Peft.Testing;
using TorchSharp;
using TorchSharp.Modules;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Quantization.Tests;

[Trait(Goldens.Trait, QuantGolden.Area)]
public sealed class QloraRunGoldenTests
{
    public static IEnumerable<TheoryDataRow<string>> Runs() => QuantGolden.Rows("qlora_run");

    [Theory, MemberData(nameof(Runs))]
    public void Training_run(string folder)
    {
        using var golden = new QuantGolden(folder);
        using var scope = NewDisposeScope();
        using var model = GoldenModel.Load(golden);
        model.PrepareModelForKbitTraining(new KbitPreparationOptions { Casts = KbitCasts.EverythingAsPeft, UseGradientCheckpointing = false });
        using var peft = model.GetPeftModel(new LoraConfig
        {
            Rank = golden.Int("r"), Alpha = golden.Double("alpha"),
            TargetModules = TargetModules.Regex(@".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"),
        });
        var trained = peft.TrainableParameters().ToDictionary(p => p.Name.Replace(".default", "", StringComparison.Ordinal), p => p.Parameter);
        using (var init = golden.Case.Tensors(golden.Case.Json.GetProperty("files").GetProperty("lora_init").GetString()!))
        {
            Assert.Equal(init.Entries.Keys.Order(StringComparer.Ordinal), trained.Keys.Order(StringComparer.Ordinal));
            using var noGrad = no_grad();
            foreach (var (name, parameter) in trained) parameter.copy_(init.Load(name));
        }
        var betas = golden.Settings.GetProperty("betas");
        using var optimizer = optim.AdamW(
            trained.Values, golden.Double("lr"), betas[0].GetDouble(), betas[1].GetDouble(), golden.Double("eps"), golden.Double("weight_decay"));
        model.train();
        var losses = new List<double>();
        for (int step = 0; step < golden.Int("steps"); step++)
        {
            using var inner = NewDisposeScope();
            using var batch = GoldenModel.Batch(model.Config, golden.Inputs, $"batch{step % golden.Int("batches")}_");
            var (sum, count) = model.LossSum(batch);
            var loss = sum / count;
            optimizer.zero_grad();
            loss.backward();
            if (step == 0) CheckGradients(golden, trained);
            optimizer.step();
            losses.Add(loss.ToDouble());
        }
        var expected = golden.Expected["losses"];
        golden.Check("losses[0]", expected[0], tensor(losses[0], ScalarType.Float64), golden.Rule("losses[0]"));
        golden.Check("losses", expected, tensor(losses, ScalarType.Float64), golden.Rule("losses"));
        CheckFinal(golden, trained);
    }

    private static void CheckGradients(QuantGolden golden, Dictionary<string, Parameter> trained)
    {
        foreach (var (name, expected) in golden.Expected.Where(e => e.Key.StartsWith("grad_step1_", StringComparison.Ordinal)))
            golden.Check(name, expected, trained[name["grad_step1_".Length..]].grad!, golden.Rule(name));
    }

    /// <summary>The mean over all elements of all tensors, and where given the largest difference.</summary>
    private static void CheckFinal(QuantGolden golden, Dictionary<string, Parameter> trained)
    {
        var rule = golden.Rule("lora_final/x");
        using var final = golden.Case.Tensors(golden.Case.Json.GetProperty("files").GetProperty("lora_final").GetString()!);
        double sum = 0, count = 0, worst = 0, rms = 0, largest = 0;
        foreach (var (name, parameter) in trained)
        {
            var difference = (final.Load(name) - parameter).abs();
            sum += difference.sum().ToDouble();
            count += difference.numel();
            worst = Math.Max(worst, difference.max().ToDouble());
            rms += golden.Spread("lora_final/" + name).Rms / trained.Count;
            largest = Math.Max(largest, golden.Spread("lora_final/" + name).MaxAbs);
        }
        // The limit of the mean grows by twice the mean of the rms of its group.
        var spread = new IsaSpread(largest, rms);
        TensorAssert.AtMost(sum / count, rule.GetProperty("mean_abs_difference").GetDouble(), spread.OfRms, spread, $"{golden.Case.Name}: mean difference");
        if (rule.TryGetProperty("atol", out var atol)) TensorAssert.AtMost(worst, atol.GetDouble(), spread.OfLargest, spread, $"{golden.Case.Name}: largest difference");
    }
}
