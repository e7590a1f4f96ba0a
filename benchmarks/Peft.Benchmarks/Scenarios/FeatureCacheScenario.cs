using Peft.Llava;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Benchmarks;

/// <summary>The vision tower's time in the first and in the second epoch with a <see cref="FeatureCache"/>, keys and checksums included.</summary>
internal static class FeatureCacheScenario
{
    private const double Bar = 3;

    /// <summary>Runs the scenario.</summary>
    public static IReadOnlyList<ResultRow> Run(string folder, BenchmarkSize size, int batch, int batches)
    {
        using var model = LlavaModel.Load(folder, new LlavaLoadOptions { Dtype = ScalarType.BFloat16 });
        var tower = model.VisionTower!;
        var builder = new LlavaBatchBuilder(model.Config);
        var generator = new BatchGenerator(size);
        var data = Enumerable.Range(0, batches).Select(i => generator.Batch(builder, i, batch)).ToList();
        string store = Directory.CreateTempSubdirectory("peft-benchmark-").FullName;
        try
        {
            using (no_grad()) tower.call(data[0].Pixels!).Dispose();       // warm-up
            using var memory = new MemoryFeatureStore(1L << 32);
            return [.. Measure(tower, data, "memory", memory), .. Measure(tower, data, "disk", new DiskFeatureStore(store))];
        }
        finally
        {
            tower.Cache = null;
            data.ForEach(d => d.Dispose());
            Directory.Delete(store, true);
        }
    }

    private static IEnumerable<ResultRow> Measure(VisionTower tower, List<LlavaBatch> data, string name, IFeatureStore store)
    {
        ProcessMemory.ResetPeak();
        var cache = tower.Cache = new FeatureCache(tower, store);
        long tiles = data.Sum(d => d.TileCount);
        var first = Epoch(tower, data);
        var second = Epoch(tower, data);
        if ((cache.Misses, cache.Hits) != (tiles, tiles)) throw new InvalidOperationException($"The cache had {cache.Misses} misses and {cache.Hits} hits for {tiles} tiles.");
        double share = 100 * second.Sum() / first.Sum();
        yield return Row($"first epoch, {name}", first, tiles / first.Sum(), "pictures/s", "");
        yield return Row($"second epoch, {name}", second, share, "% of the first", $"bar {Bar} %: {(share < Bar ? "met" : "missed")}");
    }

    private static ResultRow Row(string variant, List<double> seconds, double rate, string unit, string note)
        => new(variant, TrainingScenario.Median(seconds), seconds.Min(), rate, unit, null, ProcessMemory.PeakMegabytes, note);

    /// <summary>Seconds of the tower per batch.</summary>
    private static List<double> Epoch(VisionTower tower, List<LlavaBatch> data)
    {
        var seconds = new List<double>();
        foreach (var batch in data)
        {
            double start = Clock.Now();
            using (NewDisposeScope()) tower.call(batch.Pixels!);
            seconds.Add(Clock.Now() - start);
        }
        return seconds;
    }
}
