using Peft.Llava;
using static TorchSharp.torch;

namespace Peft.Benchmarks;

/// <summary>Loading a checkpoint: page cache evicted and warm; in its stored dtype (mapped) and widened to float32.</summary>
internal static class LoadScenario
{
    /// <summary>Runs the scenario.</summary>
    public static IReadOnlyList<ResultRow> Run(string folder, int repeats)
    {
        var rows = new List<ResultRow>();
        foreach (var dtype in new[] { ScalarType.BFloat16, ScalarType.Float32 })
        {
            string name = dtype == ScalarType.BFloat16 ? "bf16" : "fp32";
            rows.Add(Measure(name + " cold", folder, dtype, 1, cold: true));
            rows.Add(Measure(name + " warm", folder, dtype, repeats, cold: false));
        }
        return rows;
    }

    private static ResultRow Measure(string variant, string folder, ScalarType dtype, int repeats, bool cold)
    {
        var seconds = new List<double>();
        bool reset = ProcessMemory.ResetPeak();
        for (int i = 0; i < repeats; i++)
        {
            if (cold) PageCache.Evict(folder);
            double start = Clock.Now();
            using var model = LlavaModel.Load(folder, new LlavaLoadOptions { Dtype = dtype });
            seconds.Add(Clock.Now() - start);
        }
        double bytes = Directory.EnumerateFiles(folder, "*.safetensors").Sum(f => new FileInfo(f).Length);
        return new ResultRow(variant, TrainingScenario.Median(seconds), seconds.Min(), bytes / 1e6 / TrainingScenario.Median(seconds), "MB/s", null,
            ProcessMemory.PeakMegabytes, $"peak reset {reset}; mapped weights are read on first use");
    }
}
