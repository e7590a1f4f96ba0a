using System.Text.Json;
using System.Text.Json.Serialization;
using Peft.Core;

namespace Peft.Benchmarks;

/// <summary>One row of a scenario.</summary>
internal sealed record ResultRow(
    string Variant, double SecondsMedian, double SecondsMin, double Rate, string RateUnit, double? MfuPercent, double PeakRssMb, string Note);

/// <summary>What a scenario writes. The peaks are libtorch's, in GFLOP/s; <c>gemm_before</c> and <c>gemm_after</c> are the faster of the two dtypes, to which shares of the peak refer.</summary>
internal sealed record BenchmarkResult(
    string Library, string Scenario, string Size, int Batch, int Threads, IReadOnlyDictionary<string, string> Versions, string Status,
    double GemmBefore, double GemmAfter, double GemmBf16, double GemmFp32, string Level, IReadOnlyList<string> Products, IReadOnlyList<ResultRow> Rows)
{
    /// <summary>The result of a scenario that ran in this process.</summary>
    public static BenchmarkResult Of(string scenario, string size, int batch, GemmPeak before, GemmPeak after, IReadOnlyList<ResultRow> rows)
        => new("Peft.Llava", scenario, size, batch, TorchSharp.torch.get_num_threads(), Benchmarks.Versions.All, "ok", before.Faster, after.Faster,
            Math.Max(before.Bf16, after.Bf16), Math.Max(before.Fp32, after.Fp32), CpuLevels.NameOf(CpuLevels.Process), ProductChoice.Describe(), rows);

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
