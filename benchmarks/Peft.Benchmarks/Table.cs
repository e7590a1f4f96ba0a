namespace Peft.Benchmarks;

/// <summary>Prints results.</summary>
internal static class Table
{
    /// <summary>Prints a scenario's rows.</summary>
    public static void Print(BenchmarkResult result)
    {
        Console.WriteLine($"{result.Size}, batch {result.Batch}, {result.Threads} threads, level {result.Level}, GEMM {result.GemmBefore:F0} / {result.GemmAfter:F0} GFLOP/s "
            + $"(the faster of bf16 {result.GemmBf16:F0} and fp32 {result.GemmFp32:F0})"
            + (Math.Abs(result.GemmBefore - result.GemmAfter) > 0.05 * result.GemmBefore ? "  (the peaks differ by more than 5 %: run again)" : ""));
        foreach (string product in result.Products) Console.WriteLine($"  products, {product}");
        int width = BenchmarkSize.All[result.Size].Text.Hidden, rank = TrainingScenario.RankFor(width);
        if (rank != TrainingScenario.Rank) Console.WriteLine($"  adapters of the model have rank {rank}, since {TrainingScenario.Rank} does not fit a width of {width}; a model this small tries the code and measures little");
        foreach (var row in result.Rows)
        {
            string mfu = row.MfuPercent is { } value ? $"MFU {value,5:F1} %" : "           ";
            Console.WriteLine($"  {row.Variant,-28} {row.SecondsMedian,9:F4} s  {row.Rate,10:F2} {row.RateUnit,-9}  {mfu}  peak {row.PeakRssMb,6:F0} MB  {row.Note}");
        }
    }
}
