namespace Peft.Benchmarks;

/// <summary>Prints results.</summary>
internal static class Table
{
    /// <summary>Prints a scenario's rows.</summary>
    public static void Print(BenchmarkResult result)
    {
        Console.WriteLine($"{result.Size}, batch {result.Batch}, {result.Threads} threads, GEMM {result.GemmBefore:F0} / {result.GemmAfter:F0} GFLOP/s"
            + (Math.Abs(result.GemmBefore - result.GemmAfter) > 0.05 * result.GemmBefore ? "  (the peaks differ by more than 5 %: run again)" : ""));
        foreach (var row in result.Rows)
        {
            string mfu = row.MfuPercent is { } value ? $"MFU {value,5:F1} %" : "           ";
            Console.WriteLine($"  {row.Variant,-28} {row.SecondsMedian,9:F4} s  {row.Rate,10:F2} {row.RateUnit,-9}  {mfu}  peak {row.PeakRssMb,6:F0} MB  {row.Note}");
        }
    }
}
