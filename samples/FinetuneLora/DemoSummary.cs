using System.Globalization;
using System.Text;
using System.Text.Json;
using Peft.Samples;

namespace FinetuneLora;

/// <summary>One training and what it left.</summary>
internal sealed record DemoRun(DemoTask Task, ProgressLine Progress, long AdapterBytes);

/// <summary>What the job measured: the table at its end, and summary.json.</summary>
internal sealed class DemoSummary
{
    private static readonly JsonSerializerOptions Json = new() { WriteIndented = true, PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower };
    private readonly List<TaskResult> _tasks = [];

    public long BaseBytes { get; set; }

    public double PeerAnswersEqual { get; set; }

    public bool SwitchedAnswersEqual { get; set; }

    public double Seconds { get; set; }

    public long PeakMemoryBytes { get; set; }

    public void Add(DemoRun run, ExamResult before, ExamResult after, ExamResult oldBefore, ExamResult oldAfter)
        => _tasks.Add(new TaskResult(
            run.Task.Name, Rounded(before.Scores), Rounded(after.Scores), Rounded(oldBefore.Scores), Rounded(oldAfter.Scores), run.AdapterBytes,
            run.Progress.Losses.Count, Math.Round(run.Progress.Seconds, 1), Math.Round(run.Progress.TokensPerSecond, 1), Math.Round(run.Progress.Losses[^1], 4)));

    public void Write(string path) => File.WriteAllText(path, JsonSerializer.Serialize(
        new
        {
            BaseBytes,
            BaseAnswersEqualToPython = Math.Round(PeerAnswersEqual, 2),
            SwitchedAnswersEqual,
            Tasks = _tasks,
            Seconds = Math.Round(Seconds, 1),
            PeakMemoryBytes,
        },
        Json));

    /// <summary>One line per task and kind of question.</summary>
    public string Table()
    {
        var rows = new List<string[]> { new[] { "adapter", "questions", "before %", "after %", "bytes", "of base %", "train s", "tokens/s" } };
        foreach (var task in _tasks)
        {
            bool first = true;
            foreach (var (what, before, after) in task.Lines())
            {
                rows.Add(
                [
                    first ? task.Name : "", what, Number(before), Number(after), first ? task.AdapterBytes.ToString("N0", CultureInfo.InvariantCulture) : "",
                    first ? Number(100.0 * task.AdapterBytes / BaseBytes) : "", first ? Number(task.TrainSeconds) : "",
                    first ? task.TokensPerSecond.ToString("N0", CultureInfo.InvariantCulture) : "",
                ]);
                first = false;
            }
        }
        var widths = Enumerable.Range(0, rows[0].Length).Select(column => rows.Max(r => r[column].Length)).ToArray();
        var text = new StringBuilder();
        foreach (string[] row in rows)
            text.AppendLine(string.Join("  ", row.Select((cell, i) => i < 2 ? cell.PadRight(widths[i]) : cell.PadLeft(widths[i]))).TrimEnd());
        return text.ToString();
    }

    private static string Number(double value) => value.ToString("F1", CultureInfo.InvariantCulture);

    private static Dictionary<string, double> Rounded(IReadOnlyDictionary<string, double> scores) => scores.ToDictionary(s => s.Key, s => Math.Round(s.Value, 1));

    private sealed record TaskResult(
        string Name, Dictionary<string, double> HeldOutBefore, Dictionary<string, double> HeldOutAfter, Dictionary<string, double> OldBefore,
        Dictionary<string, double> OldAfter, long AdapterBytes, int Steps, double TrainSeconds, double TokensPerSecond, double LastLoss)
    {
        public IEnumerable<(string What, double Before, double After)> Lines()
            => HeldOutBefore.Keys.Select(k => ($"{k} (held out)", HeldOutBefore[k], HeldOutAfter[k]))
                .Concat(OldBefore.Keys.Select(k => ($"{k} (old)", OldBefore[k], OldAfter[k])));
    }
}
