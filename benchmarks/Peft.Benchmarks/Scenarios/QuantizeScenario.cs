using Peft.Llava;
using Peft.Quantization;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Benchmarks;

/// <summary>Quantising: a whole model while it loads, and one 4096x4096 weight alone.</summary>
internal static class QuantizeScenario
{
    /// <summary>Runs the scenario.</summary>
    public static IReadOnlyList<ResultRow> Run(string folder, int repeats)
    {
        var rows = new List<ResultRow>
        {
            Load("load nf4", folder, QuantizationConfig.Nf4(ScalarType.BFloat16), repeats),
            Load("load int8", folder, QuantizationConfig.Int8(), repeats),
        };
        using var scope = NewDisposeScope();
        var weight = randn(4096, 4096).mul_(0.02).to(ScalarType.BFloat16);
        var codec = new FourBitCodec(QuantType.Nf4, DoubleQuantization: true);
        var packed = codec.Encode(weight);
        rows.Add(Values("nf4 quantise", weight.numel(), repeats, () => codec.Encode(weight)));
        rows.Add(Values("nf4 dequantise", weight.numel(), repeats, () => FourBitCodec.Decode(packed, ScalarType.BFloat16)));
        // What decoding is measured by: the same result, copied.
        var decoded = FourBitCodec.Decode(packed, ScalarType.BFloat16);
        var target = empty_like(decoded);
        rows.Add(Values("bf16 copy", weight.numel(), repeats, () => target.copy_(decoded)));
        rows.Add(Values("int8 rows", weight.numel(), repeats, () => RowwiseInt8Codec.EncodeWeight(weight)));
        return rows;
    }

    private static ResultRow Load(string variant, string folder, QuantizationConfig quantization, int repeats)
    {
        var seconds = new List<double>();
        double before = ProcessMemory.AnonymousMegabytes;
        bool reset = ProcessMemory.ResetPeak();
        double after = 0;
        for (int i = 0; i < repeats; i++)
        {
            double start = Clock.Now();
            using var model = LlavaModel.Load(folder, new LlavaLoadOptions { Dtype = ScalarType.BFloat16, Quantization = quantization });
            seconds.Add(Clock.Now() - start);
            after = ProcessMemory.AnonymousMegabytes;
        }
        return new ResultRow(variant, TrainingScenario.Median(seconds), seconds.Min(), 1 / TrainingScenario.Median(seconds), "loads/s", null,
            ProcessMemory.PeakMegabytes, $"anonymous memory {before:F0} MB before, {after:F0} MB with the model; peak reset {reset}");
    }

    private static ResultRow Values(string variant, long count, int repeats, Action work)
    {
        var seconds = new List<double>();
        for (int i = 0; i < 10 + repeats * 5; i++)
        {
            using var scope = NewDisposeScope();
            double start = Clock.Now();
            work();
            if (i >= 10) seconds.Add(Clock.Now() - start);
        }
        return new ResultRow(variant, TrainingScenario.Median(seconds), seconds.Min(), count / 1e6 / TrainingScenario.Median(seconds), "M values/s", null,
            ProcessMemory.PeakMegabytes, KernelSelection.Current.ToString());
    }
}
