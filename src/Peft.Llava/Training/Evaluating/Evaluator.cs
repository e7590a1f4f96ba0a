using System.Diagnostics;

namespace Peft.Llava;

/// <summary>What of the evaluations a checkpoint holds.</summary>
/// <param name="Reports">All evaluations.</param>
/// <param name="BestStep">The step of the best one; 0 before the first.</param>
/// <param name="SinceGain">Evaluations since the last gain.</param>
/// <param name="LossSum">Sum of the training losses since the last evaluation.</param>
/// <param name="LossCount">How many those are.</param>
internal sealed record EvaluationState(IReadOnlyList<EvaluationReport> Reports, int BestStep, int SinceGain, double LossSum, int LossCount);

/// <summary>Evaluates when it is due and keeps account of the best value and of patience. Of several processes the first one's metric decides in all.</summary>
internal sealed class Evaluator(EvaluationOptions options, GradientExchange exchange)
{
    private readonly List<EvaluationReport> _reports = [];
    private double _lossSum;
    private int _lossCount, _sinceGain;

    public EvaluationReport? Best { get; private set; }

    public IReadOnlyList<EvaluationReport> Reports => _reports;

    public EvaluationState State => new([.. _reports], Best?.Step ?? 0, _sinceGain, _lossSum, _lossCount);

    /// <summary>Whether patience has run out.</summary>
    public bool Stops => options.EarlyStoppingPatience is int patience && _sinceGain >= patience;

    public void Restore(EvaluationState state)
    {
        _reports.Clear();
        _reports.AddRange(state.Reports);
        Best = _reports.Find(r => r.Step == state.BestStep);
        (_sinceGain, _lossSum, _lossCount) = (state.SinceGain, state.LossSum, state.LossCount);
    }

    /// <summary>Takes note of a step, and evaluates if it is time.</summary>
    public EvaluationReport? After(PlannedStep step, double loss, int totalSteps, LlavaModel model, EvaluationSource? source, CancellationToken cancellation)
    {
        _lossSum += loss;
        _lossCount++;
        bool due = options.Strategy switch
        {
            EvaluationStrategy.Steps => step.Number % options.Steps == 0 || step.Number == totalSteps,
            EvaluationStrategy.Epoch => step.EndsEpoch || step.Number == totalSteps,
            _ => false,
        };
        if (!due) return null;
        var clock = Stopwatch.StartNew();
        double? evaluated = source?.Data is { } data ? Peft.Llava.Evaluation.Loss(model, data, options.BatchSize, cancellation).Loss : null;
        var scores = Scores(model, source, cancellation);
        double trained = _lossSum / _lossCount;
        (_lossSum, _lossCount) = (0, 0);
        double metric = exchange.First(options.Metric switch
        {
            EvaluationOptions.TrainLoss => trained,
            EvaluationOptions.Loss => evaluated!.Value,
            var name => scores[name],
        });
        bool best = Best is null ? double.IsFinite(metric) : Gains(metric, 0);
        // transformers' early stopping: its distance to the best is measured before the best is replaced, and may be larger than none.
        _sinceGain = (Best is null && best) || Gains(metric, options.EarlyStoppingThreshold) ? 0 : _sinceGain + 1;
        var report = new EvaluationReport(step.Number, step.Epoch, evaluated, trained, scores, metric, best, clock.Elapsed.TotalSeconds);
        if (best) Best = report;
        _reports.Add(report);
        return report;
    }

    /// <summary>Whether a value of the metric is better than another.</summary>
    public bool IsBetter(double metric, double than) => options.GreaterWins ? metric > than : metric < than;

    private bool Gains(double metric, double distance)
        => Best is { Metric: var best } && IsBetter(metric, best) && Math.Abs(metric - best) > distance;

    private static Dictionary<string, double> Scores(LlavaModel model, EvaluationSource? source, CancellationToken cancellation)
    {
        var scores = new Dictionary<string, double>(StringComparer.Ordinal);
        if (source is null || source.Scores.Count == 0) return scores;
        using var mode = new EvaluationMode(model);
        foreach (var (name, score) in source.Scores) scores[name] = score(model, cancellation);
        return scores;
    }
}
