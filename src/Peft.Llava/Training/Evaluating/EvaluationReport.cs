using System.Text.Json.Serialization;

namespace Peft.Llava;

/// <summary>One evaluation during a training.</summary>
/// <param name="Step">After which step.</param>
/// <param name="Epoch">Epochs done.</param>
/// <param name="Loss">The mean loss over the evaluation data; null without data.</param>
/// <param name="TrainLoss">The mean training loss of the steps since the evaluation before; not a number if one of them is not.</param>
/// <param name="Scores">The scores by name.</param>
/// <param name="Metric">The value that decides.</param>
/// <param name="IsBest">Whether it is the best so far.</param>
/// <param name="Seconds">How long it took.</param>
public sealed record EvaluationReport(
    int Step, double Epoch, double? Loss, double TrainLoss, IReadOnlyDictionary<string, double> Scores, double Metric, bool IsBest, double Seconds)
{
    /// <summary>All values by transformers' names: <c>eval_loss</c>, <c>eval_NAME</c> for each score.</summary>
    [JsonIgnore]
    public IEnumerable<(string Name, double Value)> Values
    {
        get
        {
            if (Loss is double loss) yield return ("eval_loss", loss);
            foreach (var (name, score) in Scores.OrderBy(s => s.Key, StringComparer.Ordinal)) yield return ($"eval_{name}", score);
        }
    }
}
