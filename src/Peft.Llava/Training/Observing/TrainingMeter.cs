using System.Diagnostics.Metrics;

namespace Peft.Llava;

/// <summary>
/// Measures a training by <see cref="Meter"/>, which OpenTelemetry and <c>dotnet-counters</c> listen to: add the meter
/// <see cref="MeterName"/> to the exporter.
/// </summary>
public sealed class TrainingMeter : ITrainingObserver, IDisposable
{
    /// <summary>The meter's name.</summary>
    public const string MeterName = "Peft.Llava.Training";

    private readonly Meter _meter;
    private readonly Counter<long> _steps, _tokens, _supervised, _clipped, _skipped;
    private readonly Histogram<double> _duration, _wait;
    private readonly Gauge<double> _loss, _norm, _rate, _epoch, _scale, _evaluation;
    private readonly KeyValuePair<string, object?>[] _tags;
    private IReadOnlyList<string> _groups = [];

    /// <summary>Creates the instruments.</summary>
    /// <param name="run">The run's name, a tag <c>run</c> of every measurement; null for no tag.</param>
    /// <param name="factory">Makes the meter, for hosts that manage theirs; null for a meter of its own.</param>
    public TrainingMeter(string? run = null, IMeterFactory? factory = null)
    {
        _meter = factory?.Create(new MeterOptions(MeterName)) ?? new Meter(MeterName);
        _tags = run is null ? [] : [new("run", run)];
        _steps = _meter.CreateCounter<long>("peft.training.steps", "{step}", "Optimizer steps done.");
        _tokens = _meter.CreateCounter<long>("peft.training.tokens", "{token}", "Tokens trained on, image features included.");
        _supervised = _meter.CreateCounter<long>("peft.training.supervised_tokens", "{token}", "Tokens with a label.");
        _clipped = _meter.CreateCounter<long>("peft.training.clipped_steps", "{step}", "Steps whose gradients were scaled down.");
        _skipped = _meter.CreateCounter<long>("peft.training.skipped_steps", "{step}", "Steps skipped because a gradient overflowed in float16.");
        _duration = _meter.CreateHistogram<double>("peft.training.step.duration", "s", "Whole steps.");
        _wait = _meter.CreateHistogram<double>("peft.training.data_wait.duration", "s", "Waiting for data within steps.");
        _loss = _meter.CreateGauge<double>("peft.training.loss", description: "The last step's loss.");
        _norm = _meter.CreateGauge<double>("peft.training.grad_norm", description: "The last step's gradient norm before clipping.");
        _rate = _meter.CreateGauge<double>("peft.training.learning_rate", description: "The last step's learning rate, by parameter group.");
        _scale = _meter.CreateGauge<double>("peft.training.loss_scale", description: "What the last step's loss was multiplied with.");
        _evaluation = _meter.CreateGauge<double>("peft.training.evaluation", description: "The last evaluation's values, by name.");
        _epoch = _meter.CreateGauge<double>("peft.training.epoch", "{epoch}", "Epochs done.");
    }

    /// <inheritdoc/>
    public void OnStart(TrainingStart start)
    {
        ArgumentNullException.ThrowIfNull(start);
        _groups = [.. start.Groups.Select(g => g.Name)];
    }

    /// <inheritdoc/>
    public TrainingVerdict OnStep(StepReport report)
    {
        ArgumentNullException.ThrowIfNull(report);
        _steps.Add(1, _tags);
        _tokens.Add(report.Tokens, _tags);
        _supervised.Add(report.SupervisedTokens, _tags);
        if (report.Clipped) _clipped.Add(1, _tags);
        if (report.Skipped) _skipped.Add(1, _tags);
        foreach (var (name, value) in report.Evaluation?.Values ?? []) _evaluation.Record(value, [.. _tags, new("metric", name)]);
        _scale.Record(report.LossScale, _tags);
        _duration.Record(report.Seconds, _tags);
        _wait.Record(report.DataWaitSeconds, _tags);
        _loss.Record(report.Loss, _tags);
        _norm.Record(report.GradNorm, _tags);
        _epoch.Record(report.Epoch, _tags);
        for (int i = 0; i < report.Rates.Count; i++)
            _rate.Record(report.Rates[i], [.. _tags, new("group", i < _groups.Count ? _groups[i] : $"{i}")]);
        return TrainingVerdict.Continue;
    }

    /// <summary>Ends the meter.</summary>
    public void Dispose() => _meter.Dispose();
}
