namespace Peft.Llava;

/// <summary>How <see cref="EvaluationObserver"/> evaluates.</summary>
public sealed record EvaluationOptions
{
    /// <summary>Steps between evaluations.</summary>
    public int EverySteps { get; init; } = 100;

    /// <summary>Samples at a time.</summary>
    public int BatchSize { get; init; } = 8;

    /// <summary>Evaluations without a better score after which the training stops; null never stops it.</summary>
    public int? Patience { get; init; }

    /// <summary>How much better a score must be to count.</summary>
    public double MinimumGain { get; init; }

    /// <summary>Where the best weights so far are saved; null saves none.</summary>
    public string? BestFolder { get; init; }

    /// <summary>
    /// What is scored instead of the loss, lower being better: generate and compare answers, for example (negate an accuracy). The model is in
    /// evaluation mode.
    /// </summary>
    public Func<LlavaModel, double>? Score { get; init; }
}

/// <summary>One evaluation during a training.</summary>
/// <param name="Step">After which step.</param>
/// <param name="Loss">The evaluation loss; null where only <see cref="EvaluationOptions.Score"/> was asked for.</param>
/// <param name="Score">What decides: the loss, or what <see cref="EvaluationOptions.Score"/> gave.</param>
/// <param name="IsBest">Whether it is the best so far.</param>
public sealed record EvaluationReport(int Step, double? Loss, double Score, bool IsBest);

/// <summary>Evaluates during a training, keeps the best weights, and stops when nothing gets better.</summary>
/// <param name="data">Samples that are not trained on; null if <see cref="EvaluationOptions.Score"/> does without.</param>
/// <param name="options">How.</param>
/// <param name="onReport">Told of each evaluation.</param>
public sealed class EvaluationObserver(ITrainingData? data, EvaluationOptions options, Action<EvaluationReport>? onReport = null) : ITrainingObserver
{
    private readonly List<EvaluationReport> _reports = [];
    private readonly BestValue _best = new(options.MinimumGain);
    private LLaVATrainer? _trainer;

    /// <summary>All evaluations so far.</summary>
    public IReadOnlyList<EvaluationReport> Reports => _reports;

    /// <summary>The best one so far, or null before the first.</summary>
    public EvaluationReport? Best { get; private set; }

    /// <inheritdoc/>
    /// <exception cref="TrainingOptionsException">The options have problems.</exception>
    public void OnStart(TrainingStart start)
    {
        ArgumentNullException.ThrowIfNull(start);
        var problems = new List<string>();
        if (options.EverySteps <= 0) problems.Add($"EverySteps {options.EverySteps} is not positive");
        if (options.BatchSize <= 0) problems.Add($"BatchSize {options.BatchSize} of the evaluation is not positive");
        if (options.Patience is <= 0) problems.Add($"Patience {options.Patience} is not positive; null never stops the training");
        if (data is null && options.Score is null) problems.Add("the evaluation has neither data nor a Score; give one of them");
        if (start.Trainer is null) problems.Add("no trainer is behind this training; give the observer to a LLaVATrainer");
        if (problems.Count > 0) throw new TrainingOptionsException(problems);
        _trainer = start.Trainer;
    }

    /// <inheritdoc/>
    public TrainingVerdict OnStep(StepReport report)
    {
        ArgumentNullException.ThrowIfNull(report);
        if (report.Step % options.EverySteps != 0 && report.Step != report.TotalSteps) return TrainingVerdict.Continue;
        var model = _trainer!.Model;
        double? loss = data is null ? null : Evaluation.Loss(model, data, options.BatchSize).Loss;
        double score = options.Score is null ? loss!.Value : ScoreOf(model);
        bool best = _best.Add(report.Step, score);
        var evaluation = new EvaluationReport(report.Step, loss, score, best);
        _reports.Add(evaluation);
        if (best)
        {
            Best = evaluation;
            if (options.BestFolder is { } folder) _trainer.SaveModel(folder);
        }
        onReport?.Invoke(evaluation);
        return options.Patience is int patience && _best.Since >= patience ? TrainingVerdict.Stop : TrainingVerdict.Continue;
    }

    private double ScoreOf(LlavaModel model)
    {
        bool training = model.training;
        using var noGrad = TorchSharp.torch.no_grad();
        model.eval();
        try
        {
            return options.Score!(model);
        }
        finally
        {
            model.train(training);
            model.VisionTower?.eval();
        }
    }
}
