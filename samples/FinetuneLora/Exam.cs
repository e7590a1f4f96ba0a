using System.Text.Json;
using Peft.Llava;

namespace FinetuneLora;

/// <summary>An evaluation file of the sample data: questions with the expected answers, each of a category.</summary>
internal sealed class Exam : IDisposable
{
    private const int LongestAnswer = 24;
    private readonly AnswerEvaluation _evaluation;
    private readonly Dictionary<string, string> _categories;

    public Exam(string file, string dataFolder, LlavaProcessor processor)
    {
        string path = Path.Combine(dataFolder, file);
        _evaluation = new AnswerEvaluation(
            LlavaDataset.FromJson(path, dataFolder, processor), new AnswerEvaluationOptions { MaxNewTokens = LongestAnswer });
        using var json = JsonDocument.Parse(File.ReadAllBytes(path));
        _categories = json.RootElement.EnumerateArray()
            .ToDictionary(r => r.GetProperty("id").GetString()!, r => r.GetProperty("category").GetString()!);
    }

    /// <summary>Asks all questions.</summary>
    public ExamResult Ask(LlavaModel model, CancellationToken stop)
    {
        var answers = _evaluation.Run(model, stop);
        var scores = answers.GroupBy(a => _categories[a.Sample.Id])
            .ToDictionary(g => g.Key, g => 100.0 * g.Count(a => a.IsExact) / g.Count());
        return new ExamResult(answers, scores);
    }

    public void Dispose() => _evaluation.Dispose();
}

/// <summary>Answers, and the percentage of exact ones by category.</summary>
internal sealed record ExamResult(IReadOnlyList<EvaluatedAnswer> Answers, IReadOnlyDictionary<string, double> Scores)
{
    public override string ToString() => string.Join(", ", Scores.Select(s => FormattableString.Invariant($"{s.Key} {s.Value:F1} %")));
}
