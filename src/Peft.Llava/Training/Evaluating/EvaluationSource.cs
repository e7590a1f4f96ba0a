namespace Peft.Llava;

/// <summary>What a training is evaluated on: samples for the loss, and scores of one's own, such as generated answers.</summary>
public sealed record EvaluationSource
{
    /// <summary>Samples that are not trained on, for the metric <c>loss</c>; null for none.</summary>
    public ITrainingData? Data { get; init; }

    /// <summary>The same as a data set, which the trainer encodes for its model, as it does with the samples it trains on; null for none.</summary>
    public LlavaDataset? Dataset { get; init; }

    /// <summary>
    /// Scores by name. The model is in evaluation mode, without gradients, and what a score draws from torch's generator is put back.
    /// </summary>
    public IReadOnlyDictionary<string, Func<LlavaModel, CancellationToken, double>> Scores { get; init; }
        = new Dictionary<string, Func<LlavaModel, CancellationToken, double>>();

    /// <summary>A score: generates answers and gives the share of those that are exactly the expected ones.</summary>
    /// <param name="answers">The questions; it stays the caller's.</param>
    public static Func<LlavaModel, CancellationToken, double> ExactAnswers(AnswerEvaluation answers)
    {
        ArgumentNullException.ThrowIfNull(answers);
        return (model, cancellation) =>
        {
            var all = answers.Run(model, cancellation);
            return all.Count == 0 ? double.NaN : all.Count(a => a.IsExact) / (double)all.Count;
        };
    }

    /// <summary>All that does not fit the options: one sentence each.</summary>
    internal static IReadOnlyList<string> Problems(EvaluationSource? source, EvaluationOptions options)
    {
        var problems = new List<string>();
        if (options.Strategy == EvaluationStrategy.None)
        {
            if (source is not null) problems.Add("Evaluation is given to the trainer, and Evaluation.Strategy is None; set it to Steps or Epoch");
            return problems;
        }
        if (source is { Data: not null, Dataset: not null }) problems.Add("the evaluation has Data and a Dataset; give one of them");
        string[] reserved = [EvaluationOptions.Loss, EvaluationOptions.TrainLoss];
        problems.AddRange(source?.Scores.Keys.Where(reserved.Contains).Select(name => $"a score is named '{name}', which is a metric of its own; choose another name") ?? []);
        string[] known = [EvaluationOptions.TrainLoss, .. source is not { Data: not null } and not { Dataset: not null } ? (string[])[] : [EvaluationOptions.Loss], .. source?.Scores.Keys ?? []];
        if (!known.Contains(options.Metric))
            problems.Add($"MetricForBest is '{options.MetricForBest}', and the evaluation gives {string.Join(", ", known)}; set the trainer's Evaluation with Data, a Dataset or such a score");
        return problems;
    }
}
