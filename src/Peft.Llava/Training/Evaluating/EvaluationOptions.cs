namespace Peft.Llava;

/// <summary>When a training evaluates, by transformers' <c>eval_strategy</c>.</summary>
public enum EvaluationStrategy
{
    /// <summary><c>no</c>: never.</summary>
    None,

    /// <summary><c>steps</c>: every <see cref="EvaluationOptions.Steps"/> steps, and after the last one.</summary>
    Steps,

    /// <summary><c>epoch</c>: after each epoch, and after the last step.</summary>
    Epoch,
}

/// <summary>
/// Evaluation during a training, by transformers' settings: when, which metric decides, whether the best weights are taken back at the end, and when
/// to stop early. What is evaluated is the trainer's <see cref="LLaVATrainer.Evaluation"/>.
/// </summary>
public sealed record EvaluationOptions
{
    /// <summary>The metric that needs no evaluation data: the mean training loss since the evaluation before.</summary>
    public const string TrainLoss = "train_loss";

    /// <summary>The metric of the evaluation data: the mean loss over their supervised tokens.</summary>
    public const string Loss = "loss";

    /// <summary><c>eval_strategy</c>: when to evaluate.</summary>
    public EvaluationStrategy Strategy { get; init; }

    /// <summary><c>eval_steps</c>: steps between evaluations.</summary>
    public int Steps { get; init; } = 500;

    /// <summary><c>per_device_eval_batch_size</c>: samples at a time.</summary>
    public int BatchSize { get; init; } = 8;

    /// <summary>
    /// <c>metric_for_best_model</c>: <see cref="Loss"/>, <see cref="TrainLoss"/>, or the name of one of <see cref="EvaluationSource.Scores"/>; a leading
    /// <c>eval_</c> is of no matter.
    /// </summary>
    public string MetricForBest { get; init; } = Loss;

    /// <summary><c>greater_is_better</c>; null for false where the metric's name ends in <c>loss</c> and true elsewhere.</summary>
    public bool? GreaterIsBetter { get; init; }

    /// <summary>
    /// <c>load_best_model_at_end</c>: each best evaluation so far writes a checkpoint, which <see cref="TrainingOptions.SaveTotalLimit"/> spares, and the
    /// training ends with its weights.
    /// </summary>
    public bool LoadBestAtEnd { get; init; }

    /// <summary><c>early_stopping_patience</c>: evaluations in a row without enough gain after which the training stops; null never stops it.</summary>
    public int? EarlyStoppingPatience { get; init; }

    /// <summary><c>early_stopping_threshold</c>: how far a value must be beyond the best one to count as a gain; the best itself needs no such distance.</summary>
    public double EarlyStoppingThreshold { get; init; }

    /// <summary>The metric's name without <c>eval_</c>.</summary>
    internal string Metric => MetricForBest.StartsWith("eval_", StringComparison.Ordinal) ? MetricForBest[5..] : MetricForBest;

    internal bool GreaterWins => GreaterIsBetter ?? !Metric.EndsWith("loss", StringComparison.Ordinal);

    /// <summary>All that is wrong with the values: one sentence each.</summary>
    public IReadOnlyList<string> Problems()
    {
        var problems = new List<string>();
        if (Steps <= 0) problems.Add($"Steps {Steps} is not positive; choose EvaluationStrategy.None not to evaluate");
        if (BatchSize <= 0) problems.Add($"BatchSize {BatchSize} is not positive");
        if (string.IsNullOrWhiteSpace(Metric)) problems.Add("MetricForBest is empty; give loss, train_loss or a score's name");
        if (EarlyStoppingPatience is <= 0) problems.Add($"EarlyStoppingPatience {EarlyStoppingPatience} is not positive; null never stops the training");
        if (EarlyStoppingThreshold is not (>= 0 and < double.PositiveInfinity)) problems.Add($"EarlyStoppingThreshold {EarlyStoppingThreshold:R} is negative or not a number");
        if (Strategy == EvaluationStrategy.None && LoadBestAtEnd) problems.Add("LoadBestAtEnd needs evaluations; set Strategy to Steps or Epoch");
        if (Strategy == EvaluationStrategy.None && EarlyStoppingPatience is not null) problems.Add("EarlyStoppingPatience needs evaluations; set Strategy to Steps or Epoch");
        return problems;
    }
}
