using Peft.Core;
using Peft.Llava;
using Peft.Quantization;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Benchmarks;

/// <summary>What one training scenario trains.</summary>
/// <param name="Name">Its name in the tables.</param>
/// <param name="Base">The base's dtype.</param>
/// <param name="Float32Adapter">Whether adapter weights are float32 on a bf16 base.</param>
/// <param name="Checkpointing">Whether decoder layers are run again in the backward.</param>
/// <param name="Quantization">How the base is quantised, or null. Then the model is prepared as LLaVA's recipe does.</param>
internal sealed record TrainingSetup(string Name, ScalarType Base, bool Float32Adapter, bool Checkpointing, QuantizationConfig? Quantization = null)
{
    /// <summary>The scenarios.</summary>
    public static IReadOnlyList<TrainingSetup> All { get; } =
    [
        new("lora_fp32", ScalarType.Float32, true, false),
        new("lora_bf16", ScalarType.BFloat16, true, false),
        new("lora_bf16_ckpt", ScalarType.BFloat16, true, true),
        new("lora_bf16_pure", ScalarType.BFloat16, false, false),
        new("qlora_nf4", ScalarType.BFloat16, false, true, QuantizationConfig.Nf4(ScalarType.BFloat16)),
        new("qlora_nf4_nockpt", ScalarType.BFloat16, false, false, QuantizationConfig.Nf4(ScalarType.BFloat16)),
        new("lora_int8", ScalarType.BFloat16, false, false, QuantizationConfig.Int8()),
    ];
}

/// <summary>LoRA training steps: forward, backward, clipping, optimizer, zero_grad.</summary>
internal static class TrainingScenario
{
    /// <summary>LLaVA's rank.</summary>
    internal const int Rank = 128;

    private static readonly TargetModules Targets = TargetModules.Regex(@"model\.(language_model\.)?layers\..*_proj");

    /// <summary>The rank for a model: LLaVA's, or a quarter of a width that is smaller than that.</summary>
    internal static int RankFor(int width) => width >= Rank ? Rank : width / 4;

    /// <summary>Runs a scenario in this process.</summary>
    public static BenchmarkResult Run(TrainingSetup setup, string sizeName, int batch, int steps, string folder)
    {
        var size = BenchmarkSize.All[sizeName];
        bool reset = ProcessMemory.ResetPeak();
        using var model = LlavaModel.Load(folder, new LlavaLoadOptions { Dtype = setup.Base, Quantization = setup.Quantization });
        if (setup.Quantization is not null)
        {
            model.PrepareModelForKbitTraining(new KbitPreparationOptions { UseGradientCheckpointing = setup.Checkpointing });
            KbitPreparation.ApplyLlavaCasts(model);
        }
        using var peft = Adapt(model, setup.Float32Adapter);
        model.SetTrainable(ModelPart.Projector, true);
        model.GradientCheckpointing = setup.Checkpointing;
        model.train();
        double resident = ProcessMemory.ResidentMegabytes;
        var before = GemmPeak.Measure();
        var parameters = peft.TrainableParameters().Select(p => new NamedParameter(p.Name, p.Parameter)).ToList();
        using var optimizer = new AdamW(ParameterGroups.Build(parameters, _ => false, 2e-4, null, 0));
        var trainStep = new TrainStep(model, optimizer, StepWeighting.SupervisedTokens, 1, 1.0);
        var builder = new LlavaBatchBuilder(model.Config);
        var generator = new BatchGenerator(size);
        reset &= ProcessMemory.ResetPeak();

        var seconds = new List<double>();
        double flops = 0;
        long tokens = 0;
        var losses = new List<double>();
        for (int step = 0; step <= steps; step++)
        {
            using var data = generator.Batch(builder, step, batch);
            double start = Clock.Now();
            losses.Add(trainStep.Run(step + 1, [data]).Loss);
            double took = Clock.Now() - start;
            if (step == 0) continue;        // warm-up
            seconds.Add(took);
            tokens += data.Layout.TokenCount;
            flops += Flops.Training(size, RankFor(size.Text.Hidden), data.Layout.Lengths, batch);
        }
        double peak = ProcessMemory.PeakMegabytes, anonymous = ProcessMemory.AnonymousMegabytes;
        var after = GemmPeak.Measure();
        double total = seconds.Sum();
        var row = new ResultRow(setup.Name, Median(seconds), seconds.Min(), tokens / total, "tokens/s",
            100 * flops / total / 1e9 / Math.Max(before.Faster, after.Faster), peak,
            $"rank {RankFor(size.Text.Hidden)}; after load {resident:F0} MB; anonymous {anonymous:F0} MB; peak reset {reset}; losses {string.Join(" ", losses.Select(l => l.ToString("F4")))}");
        return BenchmarkResult.Of(setup.Name, sizeName, batch, before, after, [row]);
    }

    /// <summary>Puts the benchmark's adapter on a model.</summary>
    internal static PeftModel Adapt(LlavaModel model, bool float32)
    {
        manual_seed(1);
        int rank = RankFor(model.Config.Language.HiddenSize);
        var peft = model.GetPeftModel(
            new LoraConfig { Rank = rank, Alpha = 2 * rank, Dropout = 0.05, TargetModules = Targets },
            options: new AdapterOptions { UpcastToFloat32 = float32 });
        peft.Precision = AdapterPrecision.BaseDtype;
        return peft;
    }

    internal static double Median(IEnumerable<double> values)
    {
        var sorted = values.Order().ToList();
        return sorted.Count % 2 == 1 ? sorted[sorted.Count / 2] : (sorted[sorted.Count / 2 - 1] + sorted[sorted.Count / 2]) / 2;
    }
}
