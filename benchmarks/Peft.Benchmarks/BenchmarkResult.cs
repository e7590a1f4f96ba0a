using System.Text.Json;
using System.Text.Json.Serialization;

namespace Peft.Benchmarks;

/// <summary>One row of a scenario.</summary>
internal sealed record ResultRow(
    string Variant, double SecondsMedian, double SecondsMin, double Rate, string RateUnit, double? MfuPercent, double PeakRssMb, string Note);

/// <summary>What a scenario writes.</summary>
internal sealed record BenchmarkResult(
    string Library, string Scenario, string Size, int Batch, int Threads, IReadOnlyDictionary<string, string> Versions, string Status,
    double GemmBefore, double GemmAfter, IReadOnlyList<ResultRow> Rows)
{
    private static readonly JsonSerializerOptions Options = new()
    {
        WriteIndented = true,
        PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower,
        NumberHandling = JsonNumberHandling.AllowNamedFloatingPointLiterals,
    };

    /// <summary>Writes the result as JSON.</summary>
    public void Write(string path) => File.WriteAllText(path, JsonSerializer.Serialize(this, Options));

    /// <summary>Reads a result.</summary>
    public static BenchmarkResult Read(string path) => JsonSerializer.Deserialize<BenchmarkResult>(File.ReadAllBytes(path), Options)!;
}
