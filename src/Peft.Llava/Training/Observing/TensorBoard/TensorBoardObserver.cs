using Peft.Core;

namespace Peft.Llava;

/// <summary>
/// Writes each step's scalars for TensorBoard, under the tags of transformers' Trainer (<c>train/loss</c>, <c>train/grad_norm</c>,
/// <c>train/learning_rate</c>, <c>train/epoch</c>, <c>eval/loss</c>) and some more.
/// </summary>
/// <param name="folder">The run's folder, such as <c>output/runs/first</c>; made when the training starts.</param>
/// <param name="time">The clock; null for the system's.</param>
public sealed class TensorBoardObserver(string folder, TimeProvider? time = null) : ITrainingObserver, IDisposable
{
    private EventFileWriter? _writer;

    /// <summary>The event file, once the training has started; it stays known after its end.</summary>
    public string? Path { get; private set; }

    /// <inheritdoc/>
    /// <exception cref="FileWriteException">The file cannot be made.</exception>
    public void OnStart(TrainingStart start) => Writer();

    /// <inheritdoc/>
    /// <exception cref="FileWriteException">The operating system refused.</exception>
    public TrainingVerdict OnStep(StepReport report)
    {
        ArgumentNullException.ThrowIfNull(report);
        var writer = Writer();
        writer.Write(report.Step,
            ("train/loss", report.Loss),
            ("train/grad_norm", report.GradNorm),
            ("train/learning_rate", report.Rates.Count > 0 ? report.Rates[0] : 0),
            ("train/epoch", report.Epoch),
            ("train/tokens_per_second", report.Seconds > 0 ? report.Tokens / report.Seconds : 0),
            ("train/supervised_tokens", report.SupervisedTokens),
            ("train/seconds", report.Seconds),
            ("train/data_wait_seconds", report.DataWaitSeconds),
            ("train/skipped", report.Skipped ? 1 : 0),
            ("train/loss_scale", report.LossScale));
        if (report.Evaluation is { } evaluation)
            writer.Write(report.Step, [.. evaluation.Values.Select(v => ("eval/" + v.Name["eval_".Length..], v.Value)), ("eval/runtime", evaluation.Seconds)]);
        return TrainingVerdict.Continue;
    }

    /// <inheritdoc/>
    public void OnEnd(TrainingSummary summary) => Dispose();

    private EventFileWriter Writer()
    {
        _writer ??= new EventFileWriter(folder, time);
        Path = _writer.Path;
        return _writer;
    }

    /// <summary>Closes the file.</summary>
    public void Dispose()
    {
        _writer?.Dispose();
        _writer = null;
    }
}
