using Microsoft.Extensions.Logging;

namespace Peft.Llava;

/// <summary>Tells a preflight to a log.</summary>
public static partial class PreflightLog
{
    /// <summary>Writes an entry with the totals and what the policy does, and one per category with its count and first finding.</summary>
    /// <param name="report">The report.</param>
    /// <param name="logger">The logger.</param>
    /// <param name="policy">The policy that is applied.</param>
    public static void Log(this PreflightReport report, ILogger logger, PreflightPolicy policy)
    {
        ArgumentNullException.ThrowIfNull(report);
        ArgumentNullException.ThrowIfNull(logger);
        int faulty = report.SampleCount - report.UsablePlaces.Count;
        string outcome = faulty == 0 ? "all are used" : policy switch
        {
            PreflightPolicy.Skip => $"{faulty} are left out",
            PreflightPolicy.Blank => $"{faulty} get blank pictures",
            _ => $"{faulty} stop the run",
        };
        LogTotals(logger, report.SampleCount, outcome, report.Tokens, report.SupervisedTokens, report.LongestSample);
        foreach (var (category, count) in report.Counts)
            LogCategory(logger, category, count, report.Findings.First(f => f.Category == category).Message);
    }

    [LoggerMessage(20, LogLevel.Information,
        "Preflight of {SampleCount} samples: {Outcome}; {Tokens} tokens, {SupervisedTokens} supervised, the longest sample has {LongestSample}")]
    private static partial void LogTotals(ILogger logger, int sampleCount, string outcome, long tokens, long supervisedTokens, int longestSample);

    [LoggerMessage(21, LogLevel.Warning, "Preflight found {Category} in {Count} samples; the first: {First}")]
    private static partial void LogCategory(ILogger logger, PreflightCategory category, int count, string first);
}
