using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace Peft.Llava;

/// <summary>One finding in one sample.</summary>
/// <param name="Place">The sample's place in the data set.</param>
/// <param name="SampleId">Its id.</param>
/// <param name="Category">What was found.</param>
/// <param name="Message">The finding in words, with the next step.</param>
/// <param name="File">The file at fault, or null.</param>
public sealed record PreflightFinding(int Place, string SampleId, PreflightCategory Category, string Message, string? File)
{
    /// <summary>How bad it is.</summary>
    public PreflightSeverity Severity => Category.SeverityOf();
}

/// <summary>What a data set is like.</summary>
/// <param name="SampleCount">Number of samples.</param>
/// <param name="Findings">All findings, in the data set's order.</param>
/// <param name="Tokens">Ids of all usable samples, an image counting as many as it becomes.</param>
/// <param name="SupervisedTokens">Positions with a label, before the length limit, of all usable samples.</param>
/// <param name="LongestSample">Ids of the longest usable sample, before it is cut.</param>
public sealed record PreflightReport(
    int SampleCount, IReadOnlyList<PreflightFinding> Findings, long Tokens, long SupervisedTokens, int LongestSample)
{
    private static readonly JsonSerializerOptions Json = new()
    {
        WriteIndented = true,
        PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower,
        DictionaryKeyPolicy = JsonNamingPolicy.SnakeCaseLower,
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
        Converters = { new JsonStringEnumConverter(JsonNamingPolicy.SnakeCaseLower) },
    };

    /// <summary>True if nothing was found.</summary>
    public bool IsClean => Findings.Count == 0;

    /// <summary>Findings that keep their sample from being trained on.</summary>
    public IEnumerable<PreflightFinding> Errors => Findings.Where(f => f.Severity == PreflightSeverity.Error);

    /// <summary>The places of the samples without an error, in the data set's order.</summary>
    public IReadOnlyList<int> UsablePlaces { get; }
        = [.. Enumerable.Range(0, SampleCount).Except(Findings.Where(f => f.Severity == PreflightSeverity.Error).Select(f => f.Place))];

    /// <summary>Samples per category that was found: a sample counts once however many of its images are at fault.</summary>
    public IReadOnlyDictionary<PreflightCategory, int> Counts { get; }
        = new SortedDictionary<PreflightCategory, int>(Findings.GroupBy(f => f.Category).ToDictionary(g => g.Key, g => g.DistinctBy(f => f.Place).Count()));

    /// <summary>A summary: totals, samples per category, and the first of each.</summary>
    public override string ToString()
    {
        var text = new StringBuilder($"{SampleCount} samples, {UsablePlaces.Count} usable: {Tokens} tokens, {SupervisedTokens} supervised, longest {LongestSample}");
        foreach (var (category, count) in Counts)
        {
            string severity = category.SeverityOf() == PreflightSeverity.Error ? "error" : "warning";
            text.Append($"\n  {severity,-7}  {category}: {count}, the first: {Findings.First(f => f.Category == category).Message}");
        }
        return text.ToString();
    }

    /// <summary>The whole report as JSON: totals, <c>counts</c> by category, and <c>findings</c> with place, id, category, severity, message and file.</summary>
    public string ToJson() => JsonSerializer.Serialize(
        new
        {
            Samples = SampleCount,
            Usable = UsablePlaces.Count,
            Tokens,
            SupervisedTokens,
            LongestSample,
            Counts = Counts.ToDictionary(c => c.Key.ToString(), c => c.Value),
            Findings = Findings.Select(f => new { f.Place, Id = f.SampleId, f.Category, f.Severity, f.Message, f.File }),
        },
        Json);
}
