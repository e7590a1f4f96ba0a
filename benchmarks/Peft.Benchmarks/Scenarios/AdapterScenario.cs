using Peft.Core;
using Peft.Llava;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Benchmarks;

/// <summary>Saving and loading the adapter and the projector; merging the adapter into the base.</summary>
internal static class AdapterScenario
{
    /// <summary>Saves and loads.</summary>
    public static IReadOnlyList<ResultRow> SaveAndLoad(string folder, int repeats)
    {
        using var model = LlavaModel.Load(folder, new LlavaLoadOptions { Dtype = ScalarType.BFloat16 });
        using var peft = TrainingScenario.Adapt(model, float32: true);
        string output = Directory.CreateTempSubdirectory("peft-benchmark-").FullName;
        try
        {
            bool reset = ProcessMemory.ResetPeak();
            var save = new List<double>();
            var load = new List<double>();
            for (int i = 0; i < repeats; i++)
            {
                double start = Clock.Now();
                peft.Save(output);
                PickleWriter.Write(Path.Combine(output, "non_lora_trainables.bin"), Projector(model));
                save.Add(Clock.Now() - start);
                start = Clock.Now();
                peft.HotSwap(output, PeftModelExtensions.DefaultAdapter);
                using (var reader = TensorFiles.Open(Path.Combine(output, "non_lora_trainables.bin")))
                    foreach (string name in reader.Entries.Keys) reader.Load(name).Dispose();
                load.Add(Clock.Now() - start);
            }
            double megabytes = Directory.EnumerateFiles(output).Sum(f => new FileInfo(f).Length) / 1e6;
            double peak = ProcessMemory.PeakMegabytes;
            return
            [
                new("save", TrainingScenario.Median(save), save.Min(), megabytes / TrainingScenario.Median(save), "MB/s", null, peak, $"{megabytes:F1} MB; peak reset {reset}"),
                new("load", TrainingScenario.Median(load), load.Min(), megabytes / TrainingScenario.Median(load), "MB/s", null, peak, "into the adapter that is there"),
            ];
        }
        finally
        {
            Directory.Delete(output, true);
        }
    }

    /// <summary>Merges and takes the adapters off.</summary>
    public static IReadOnlyList<ResultRow> Merge(string folder, int repeats)
    {
        bool reset = ProcessMemory.ResetPeak();
        var seconds = new List<double>();
        for (int i = 0; i < repeats; i++)
        {
            using var model = LlavaModel.Load(folder, new LlavaLoadOptions { Dtype = ScalarType.BFloat16 });
            using var peft = TrainingScenario.Adapt(model, float32: true);
            double start = Clock.Now();
            peft.MergeAndUnload(safe: false);
            seconds.Add(Clock.Now() - start);
        }
        return [new("merge_and_unload", TrainingScenario.Median(seconds), seconds.Min(), 1 / TrainingScenario.Median(seconds), "merges/s", null,
            ProcessMemory.PeakMegabytes, $"peak reset {reset}")];
    }

    private static IEnumerable<KeyValuePair<string, Tensor>> Projector(LlavaModel model)
        => model.Parameters(ModelPart.Projector).Select(p => KeyValuePair.Create("base_model.model." + p.Name, (Tensor)p.Parameter));
}
