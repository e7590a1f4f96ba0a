using System.Globalization;
using System.Text;
using Peft.Core;

namespace Peft.Llava;

/// <summary>
/// Writes a line per step to a CSV file (comma, dot, no quotes needed), handed to the operating system at once. A file that is there is
/// continued, which a resumed run wants, if it has the same columns.
/// </summary>
/// <param name="path">The file; its folder is made when the training starts.</param>
public sealed class CsvObserver(string path) : ITrainingObserver, IDisposable
{
    /// <summary>The first line.</summary>
    public const string Header = "step,epoch,loss,grad_norm,clipped,learning_rate,tokens,supervised_tokens,seconds,data_wait_seconds,skipped,loss_scale,eval_loss,eval_metric";

    private FileStream? _file;

    /// <inheritdoc/>
    /// <exception cref="LogFileException">The file is there and is not such a log.</exception>
    /// <exception cref="FileWriteException">The operating system refused.</exception>
    public void OnStart(TrainingStart start) => _file ??= Open();

    /// <inheritdoc/>
    /// <exception cref="FileWriteException">The operating system refused; the file holds whole lines only, and the next step can be written when the cause is removed.</exception>
    public TrainingVerdict OnStep(StepReport report)
    {
        ArgumentNullException.ThrowIfNull(report);
        _file ??= Open();
        Write(_file, string.Create(CultureInfo.InvariantCulture,
            $"{report.Step},{report.Epoch:R},{report.Loss:R},{report.GradNorm:R},{(report.Clipped ? 1 : 0)},{(report.Rates.Count > 0 ? report.Rates[0] : 0):R},"
            + $"{report.Tokens},{report.SupervisedTokens},{report.Seconds:R},{report.DataWaitSeconds:R},{(report.Skipped ? 1 : 0)},{report.LossScale:R},{report.Evaluation?.Loss:R},{report.Evaluation?.Metric:R}"));
        return TrainingVerdict.Continue;
    }

    /// <inheritdoc/>
    public void OnEnd(TrainingSummary summary) => Dispose();

    /// <summary>Closes the file.</summary>
    public void Dispose()
    {
        _file?.Dispose();
        _file = null;
    }

    private FileStream Open()
    {
        try
        {
            if (Path.GetDirectoryName(Path.GetFullPath(path)) is { } folder) Directory.CreateDirectory(folder);
            string? first = File.Exists(path) ? File.ReadLines(path).FirstOrDefault() : null;
            if (first is not null && first != Header)
                throw new LogFileException(path, $"its first line is '{(first.Length > 60 ? first[..60] + "…" : first)}', not that of a training log ('{Header}')");
            var file = new FileStream(path, FileMode.Append, FileAccess.Write, FileShare.Read, bufferSize: 0);
            if (first is null) Write(file, Header);
            return file;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new FileWriteException(path, e);
        }
    }

    private static void Write(FileStream file, string line) => LogFile.Append(file, Encoding.UTF8.GetBytes(line + "\n"));
}
