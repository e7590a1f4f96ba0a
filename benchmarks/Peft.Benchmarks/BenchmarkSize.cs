using System.Text.Json;
using System.Text.Json.Serialization;

namespace Peft.Benchmarks;

/// <summary>The language model of a size.</summary>
internal sealed record TextSize(int Hidden, int Layers, int Heads, int Intermediate, int Vocab);

/// <summary>The vision tower of a size.</summary>
internal sealed record VisionSize(int Hidden, int Layers, int Heads, int Intermediate, int Image, int Patch)
{
    /// <summary>Image tokens of one picture.</summary>
    public int Patches => Image / Patch * (Image / Patch);
}

/// <summary>A model size of <c>sizes.json</c>.</summary>
internal sealed record BenchmarkSize(
    TextSize Text, VisionSize Vision, string Shard,
    [property: JsonPropertyName("optimizer_tensors")] int OptimizerTensors,
    [property: JsonPropertyName("data_samples")] int DataSamples)
{
    private static readonly JsonSerializerOptions Options = new() { PropertyNameCaseInsensitive = true };

    /// <summary>The sizes by name.</summary>
    public static IReadOnlyDictionary<string, BenchmarkSize> All { get; } = JsonSerializer.Deserialize<Dictionary<string, BenchmarkSize>>(
        File.ReadAllBytes(Path.Combine(AppContext.BaseDirectory, "sizes.json")), Options)!;

    /// <summary>Bytes of a shard.</summary>
    public long ShardBytes => Shard.EndsWith("KB", StringComparison.Ordinal) ? long.Parse(Shard[..^2]) * 1000 : long.Parse(Shard[..^2]) * 1_000_000;
}
