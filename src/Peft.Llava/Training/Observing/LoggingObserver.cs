using System.Globalization;
using Microsoft.Extensions.Logging;

namespace Peft.Llava;

/// <summary>
/// Tells a training to an <see cref="ILogger"/> with structured fields. A dtype that costs speed on this processor, a loss that is no number, and
/// data that keeps the step waiting, are warnings.
/// </summary>
/// <param name="logger">The logger.</param>
/// <param name="every">Steps between entries; the first and the last step always have one.</param>
public sealed partial class LoggingObserver(ILogger logger, int every = 1) : ITrainingObserver
{
    /// <summary>The share of a step's time above which waiting for data is worth a warning.</summary>
    public const double WaitShare = 0.2;

    private bool _warnedOfWaiting;

    /// <inheritdoc/>
    public void OnStart(TrainingStart start)
    {
        ArgumentNullException.ThrowIfNull(start);
        LogStart(logger, start.TotalSteps, start.SampleCount, start.TrainedElements, start.WarmupSteps);
        if (start.Trainer?.Model is { } model && DtypeAdvice.For(model.Dtype, model.Device) is { } advice) LogAdvice(logger, advice);
    }

    /// <inheritdoc/>
    public TrainingVerdict OnStep(StepReport report)
    {
        ArgumentNullException.ThrowIfNull(report);
        if (!double.IsFinite(report.Loss)) LogNoNumber(logger, report.Step, report.Loss, string.Join(", ", report.SampleIds.SelectMany(ids => ids)));
        if (report.Skipped) LogSkipped(logger, report.Step, report.LossScale);
        if (report.Step == 1 || report.Step == report.TotalSteps || report.Step % every == 0)
            LogStep(logger, report.Step, report.TotalSteps, report.Epoch, report.Loss, report.GradNorm, report.Rates.Count > 0 ? report.Rates[0] : 0,
                report.SupervisedTokens, report.Seconds > 0 ? report.Tokens / report.Seconds : 0);
        if (report.Evaluation is { } e)
            LogEvaluation(logger, e.Step, string.Join(", ", e.Values.Select(v => string.Create(CultureInfo.InvariantCulture, $"{v.Name} {v.Value:G5}"))), e.Metric, e.IsBest ? "the best so far" : "not the best", e.Seconds);
        // The first step's data was not prepared while anything else ran.
        if (report.Step > 1 && !_warnedOfWaiting && report.DataWaitSeconds > WaitShare * report.Seconds)
        {
            _warnedOfWaiting = true;
            LogWaiting(logger, report.Step, report.DataWaitSeconds, report.Seconds);
        }
        return TrainingVerdict.Continue;
    }

    /// <inheritdoc/>
    public void OnEnd(TrainingSummary summary)
    {
        ArgumentNullException.ThrowIfNull(summary);
        LogEnd(logger, summary.Stopped ? "stopped early" : "done", summary.Steps, summary.Epoch, summary.MeanLoss, summary.Tokens, summary.Seconds);
    }

    [LoggerMessage(1, LogLevel.Information,
        "Training begins: {TotalSteps} steps over {SampleCount} samples, {TrainedElements} trained elements, {WarmupSteps} steps of warm-up")]
    private static partial void LogStart(ILogger logger, int totalSteps, int sampleCount, long trainedElements, int warmupSteps);

    [LoggerMessage(8, LogLevel.Warning, "{Advice}")]
    private static partial void LogAdvice(ILogger logger, string advice);

    [LoggerMessage(2, LogLevel.Information,
        "Step {Step}/{TotalSteps} (epoch {Epoch:F3}): loss {Loss:F4}, gradient norm {GradNorm:F4}, rate {LearningRate:G4}, "
        + "{SupervisedTokens} supervised tokens, {TokensPerSecond:F0} tokens/s")]
    private static partial void LogStep(
        ILogger logger, int step, int totalSteps, double epoch, double loss, double gradNorm, double learningRate, long supervisedTokens,
        double tokensPerSecond);

    [LoggerMessage(3, LogLevel.Warning, "Step {Step}: the loss is {Loss}; samples {SampleIds}")]
    private static partial void LogNoNumber(ILogger logger, int step, double loss, string sampleIds);

    [LoggerMessage(4, LogLevel.Warning,
        "Step {Step} waited {WaitSeconds:F2} s of its {Seconds:F2} s for data: raise DataWorkers. Later steps that wait are not reported")]
    private static partial void LogWaiting(ILogger logger, int step, double waitSeconds, double seconds);

    [LoggerMessage(6, LogLevel.Warning,
        "Step {Step} was skipped: a gradient overflowed in float16 under a loss scale of {LossScale:R}. The scale falls; a few of these at the start are normal")]
    private static partial void LogSkipped(ILogger logger, int step, double lossScale);

    [LoggerMessage(7, LogLevel.Information, "Evaluation after step {Step}: {Values}; the deciding value {Metric:G5} is {Rank}; {Seconds:F1} s")]
    private static partial void LogEvaluation(ILogger logger, int step, string values, double metric, string rank, double seconds);

    [LoggerMessage(5, LogLevel.Information,
        "Training {Outcome} after {Steps} steps ({Epoch:F3} epochs): mean loss {MeanLoss:F4}, {Tokens} tokens in {Seconds:F1} s")]
    private static partial void LogEnd(ILogger logger, string outcome, int steps, double epoch, double meanLoss, long tokens, double seconds);
}
