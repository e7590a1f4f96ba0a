using Peft.Core;

namespace Peft.Llava;

/// <summary>
/// Keeps the best weights in a folder, which holds the old or the new ones whole at every moment but that of two renames. It judges as
/// <see cref="EarlyStopping"/> does.
/// </summary>
/// <example><c>new KeepBest("out/best", folder =&gt; trainer.SaveModel(folder))</c></example>
public sealed class KeepBest : ITrainingObserver
{
    private readonly string _folder;
    private readonly Action<string> _save;
    private readonly MeanLossWindow? _window;

    /// <summary>Creates it.</summary>
    /// <param name="folder">Where the best weights are kept; what it holds from an earlier run is replaced at the first improvement.</param>
    /// <param name="save">Writes the weights as they are into the folder it is given, which does not exist yet.</param>
    /// <param name="window">Steps that one value is the mean training loss of; 0 to judge by <see cref="Report"/> alone.</param>
    /// <param name="minimumImprovement">By how much a value must be lower to count as better.</param>
    public KeepBest(string folder, Action<string> save, int window = 50, double minimumImprovement = 0)
    {
        ArgumentException.ThrowIfNullOrEmpty(folder);
        ArgumentNullException.ThrowIfNull(save);
        ArgumentOutOfRangeException.ThrowIfNegative(window);
        _folder = Path.TrimEndingDirectorySeparator(Path.GetFullPath(folder));
        _save = save;
        _window = window > 0 ? new MeanLossWindow(window) : null;
        Best = new BestValue(minimumImprovement);
    }

    /// <summary>The value of the weights in the folder.</summary>
    public BestValue Best { get; }

    /// <summary>Takes a value of the weights as they are now, and saves them if it is the best.</summary>
    /// <param name="step">The step.</param>
    /// <param name="value">Lower is better; not a number never is the best.</param>
    /// <returns>Whether the weights were saved.</returns>
    /// <exception cref="FileWriteException">The operating system refused; the folder is as it was.</exception>
    public bool Report(int step, double value)
    {
        if (Best.IsBetter(value)) Replace();
        return Best.Add(step, value);
    }

    /// <inheritdoc/>
    public TrainingVerdict OnStep(StepReport report)
    {
        ArgumentNullException.ThrowIfNull(report);
        if (_window?.Add(report.Loss) is double mean) Report(report.Step, mean);
        return TrainingVerdict.Continue;
    }

    private void Replace()
    {
        string pending = _folder + ".pending", old = _folder + ".old";
        try
        {
            if (Directory.Exists(pending)) Directory.Delete(pending, recursive: true);
            _save(pending);
            if (Directory.Exists(old)) Directory.Delete(old, recursive: true);
            if (Directory.Exists(_folder)) Directory.Move(_folder, old);
            Directory.Move(pending, _folder);
            if (Directory.Exists(old)) Directory.Delete(old, recursive: true);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new FileWriteException(_folder, e);
        }
    }
}
