using System.Globalization;
using Peft.Core;
using static TorchSharp.torch;

namespace Peft.Llava;

public sealed partial class LLaVATrainer
{
    private TrainingState? _resumed;
    private string? _bestFolder;
    private bool _holdsBest;
    private StepBoundary? _saved;
    private DataFingerprint? _dataNow;
    private string? _baseNow;

    /// <summary>
    /// Makes <see cref="Train"/> go on where a checkpoint of the same run was written: weights, optimizer state, place in the data, random streams
    /// and log. On the CPU in float32 the run then ends with the bits of one that was never interrupted. The training takes over the run's id; from a checkpoint
    /// without one (written before runs had ids) it begins a run of its own, which leaves that checkpoint and those beside it alone.
    /// </summary>
    /// <param name="checkpoint">A <c>checkpoint-N</c> folder; see <see cref="TrainingCheckpoint.Latest"/>.</param>
    /// <exception cref="CheckpointException">The folder is no checkpoint, or was written by another version.</exception>
    /// <exception cref="StateMismatchException">Base, data or options are others than those of the checkpoint; nothing has changed.</exception>
    public void ResumeFrom(string checkpoint)
    {
        ArgumentNullException.ThrowIfNull(checkpoint);
        if (_began) throw new InvalidOperationException("This trainer has trained already. Make a new one and call its ResumeFrom before Train.");
        var state = TrainingState.Read(checkpoint);
        var problems = ResumeRules.Differences(checkpoint, state, Rules(), _trained.Peft);
        if (state.Data.DifferenceTo(DataNow) is { } difference) problems.Add(difference);
        // A version 2 of a run whose base was put together from parts has no fingerprint of the base's files.
        if (state.Base != BaseNow && (state.RecordsAllRules || !BaseNow.StartsWith(state.Base + " ", StringComparison.Ordinal))) problems.Add("the base model is another one");
        if (problems.Count > 0) throw new StateMismatchException($"The checkpoint {checkpoint}", problems);
        string optimizerFile = Path.Combine(checkpoint, TrainingState.OptimizerFileName);
        using var reader = SafetensorsReader.Open(optimizerFile);
        using var weights = new SavedWeights(checkpoint, _trained);
        var trained = _trained.Trained.ToList();
        var faults = weights.Faults(trained);
        string scalerFile = Path.Combine(checkpoint, TrainingState.ScalerFileName);
        if (_scaler is not null && !File.Exists(scalerFile))
            faults.Add($"it holds no {TrainingState.ScalerFileName}, so it was not trained in Float16");
        if (_scaler is null && File.Exists(scalerFile)) faults.Add($"it holds {TrainingState.ScalerFileName}, so it was trained in Float16, and Precision is {Options.Precision}");
        string? best = state.Evaluations is { BestStep: > 0 } e ? Path.Combine(Path.GetDirectoryName(Path.GetFullPath(checkpoint))!, TrainingCheckpoint.NameOf(e.BestStep)) : null;
        if (Options.Evaluation.LoadBestAtEnd && best is not null && !Directory.Exists(best))
            faults.Add($"the checkpoint of its best evaluation, {best}, is not there, and Evaluation.LoadBestAtEnd would need it");
        if (faults.Count > 0) throw new StateMismatchException($"The checkpoint {checkpoint}", faults);
        _scaler?.Load(scalerFile);
        var moments = reader.Entries.Keys.ToDictionary(k => k, reader.Load, StringComparer.Ordinal);
        try
        {
            _optimizer.LoadState(moments);
        }
        finally
        {
            foreach (var moment in moments.Values) moment.Dispose();
        }
        weights.CopyTo(trained);
        _history.Restore(state.History);
        if (state.Evaluations is { } evaluations)
        {
            _evaluator.Restore(evaluations);
            _bestFolder = best is not null && Path.GetDirectoryName(best) == Path.GetFullPath(Options.OutputDirectory)
                ? Path.Combine(Options.OutputDirectory, Path.GetFileName(best))
                : best;
        }
        StepsDone = state.Position.Steps;
        SkippedSteps = state.SkippedSteps;
        _resumed = state;
        RunId = state.Run ?? RunId;
        LastCheckpoint = checkpoint;
    }

    /// <summary>
    /// The run's id, which each of its checkpoints holds: a new one for each training, that of the checkpoint after <see cref="ResumeFrom"/>. Only the run's own checkpoints
    /// are removed by <see cref="TrainingOptions.SaveTotalLimit"/> or found by <see cref="TrainingCheckpoint.Latest"/>.
    /// </summary>
    public string RunId { get; private set; } = Guid.NewGuid().ToString("N");

    /// <summary>The newest whole checkpoint that this training wrote (of several processes, the first one) or went on from; null if there is none.</summary>
    public string? LastCheckpoint { get; private set; }

    /// <summary>
    /// Writes a checkpoint of the last step that was done, for a training that ended by an exception or was stopped: everything is still in memory. A
    /// checkpoint appears whole or not at all: it is written under another name, read back, and renamed. Of several processes only the first one writes.
    /// </summary>
    /// <param name="directory">The folder it goes into as <c>checkpoint-N</c>; null for <see cref="TrainingOptions.OutputDirectory"/>. Made if need be.</param>
    /// <returns>The checkpoint, for <see cref="ResumeFrom"/>.</returns>
    /// <exception cref="CheckpointSaveException">It could not be written; nothing is lost.</exception>
    /// <exception cref="InvalidOperationException">
    /// This trainer has done no step; or <see cref="EvaluationOptions.LoadBestAtEnd"/> has put the weights of an earlier step into the model, to which the
    /// optimizer's state does not belong. The best step has a checkpoint of its own, which the message names, and <see cref="SaveModel"/> saves its weights.
    /// </exception>
    public string SaveCheckpoint(string? directory = null)
    {
        if (_boundary is { } boundary) return SaveCheckpoint(boundary, directory);
        throw new InvalidOperationException(_holdsBest && _evaluator.Best is { } report && _bestFolder is { } best
            ? $"This trainer has loaded the best weights, those of step {report.Step}, and its optimizer is that of step {StepsDone}: no run can go on from the two. "
                + $"Resume from {best}{(LastCheckpoint is { } last && last != best ? $" or {last}" : "")}, or call SaveModel for the results."
            : "There is no step to resume from: this trainer has done none. Call Train first, or SaveModel for the results.");
    }

    private string SaveCheckpoint(StepBoundary boundary, string? directory = null)
    {
        string parent = directory ?? Options.OutputDirectory, target = Path.Combine(parent, TrainingCheckpoint.NameOf(boundary.Position.Steps));
        if (!Saves) return target;
        try
        {
            OutputFolder.Create(parent);
            ThrowIfOthers([target]);
            using var folder = AtomicFolder.Begin(target);
            Fill(folder.PendingPath, boundary);
            folder.Commit();
            _saved = boundary;
            LastCheckpoint = target;
            if (parent != Options.OutputDirectory) return target;
            RunMarker.Write(parent, RunId);
            RemoveOldCheckpoints(boundary.Position.Steps);
        }
        catch (PeftException e)
        {
            throw new CheckpointSaveException(boundary.Position.Steps, LastCheckpoint, e);
        }
        return target;
    }

    /// <summary>Puts the weights of the best evaluation into the model; of several processes the first one reads them and shares them.</summary>
    private void LoadBest(EvaluationReport best)
    {
        if (best.Step == StepsDone) return;
        if (Saves)
        {
            using var weights = new SavedWeights(_bestFolder!, _trained);
            weights.CopyTo([.. _trained.Trained]);
        }
        _exchange.ShareWeights(_trained.Trained);
        (_boundary, _holdsBest) = (null, true);   // its moments are not those of these weights
    }

    /// <summary>Saves once for trial, so that what cannot be saved is known before the first step and not after hours.</summary>
    private void TrySave()
    {
        try
        {
            using var folder = AtomicFolder.Begin(Path.Combine(Options.OutputDirectory, TrainingCheckpoint.NameOf(0)));
            Fill(folder.PendingPath, boundary: null);
        }
        catch (PeftException e)
        {
            throw new CheckpointSaveException(0, LastCheckpoint, e);
        }
    }

    private void Fill(string folder, StepBoundary? boundary)
    {
        Save(folder, useCache: false, boundary?.Position.Steps ?? 0);
        using (NewDisposeScope()) SafetensorsWriter.Write(Path.Combine(folder, TrainingState.OptimizerFileName), _optimizer.State, SafetensorsWriter.PyTorchMetadata);
        _scaler?.Save(Path.Combine(folder, TrainingState.ScalerFileName));
        if (boundary is null) return;
        TrainerFiles.Write(folder, _optimizer, Options, boundary.Position.Steps - SkippedSteps, _plan.StreamAt(boundary.Position), _trained.PeerPlaceOf);
        StateAt(boundary).Write(folder);
    }

    /// <summary>Makes the output folder this run's, unless it would have to replace what another run left there.</summary>
    private void BeginRun()
    {
        OutputFolder.Probe(Options.OutputDirectory);
        TrainingCheckpoint.Sweep(Options.OutputDirectory);
        if (Options.SaveStrategy == SaveStrategy.None && !Options.Evaluation.LoadBestAtEnd) return;
        ThrowIfOthers(TrainingCheckpoint.All(Options.OutputDirectory).Where(c => c.Step > StepsDone && c.Step <= TotalSteps).Select(c => c.Folder));
        RunMarker.Write(Options.OutputDirectory, RunId);
    }

    /// <exception cref="CheckpointException">One of the folders is there and is not this run's.</exception>
    private void ThrowIfOthers(IEnumerable<string> folders)
    {
        if (Options.ReplaceCheckpoints) return;
        string[] others = [.. folders.Where(f => Directory.Exists(f) && TrainingCheckpoint.RunOf(f) != RunId)];
        if (others.Length == 0) return;
        throw new CheckpointException(others[0], $"another run wrote it{(others.Length > 1 ? $" (and {string.Join(", ", others.Skip(1).Select(Path.GetFileName))})" : "")}, and this run would replace it",
            "Resume from one of that run's checkpoints by ResumeFrom, choose another OutputDirectory, move the folder away, or set ReplaceCheckpoints to have it replaced.");
    }

    private void RemoveOldCheckpoints(int step)
    {
        if (Options.SaveTotalLimit is not int limit) return;
        // The best one stays and counts, the newest one stays in any case: transformers' rule. What another run wrote stays and does not count, nor do steps
        // ahead of this one, which a resume from an earlier checkpoint comes to again.
        int bestStep = Options.Evaluation.LoadBestAtEnd ? _evaluator.Best?.Step ?? -1 : -1;
        var own = TrainingCheckpoint.All(Options.OutputDirectory).Where(c => c.Step <= step && TrainingCheckpoint.RunOf(c.Folder) == RunId).ToList();
        var old = own.Where(c => c.Step != bestStep && c.Step != step).Select(c => c.Folder).ToList();
        foreach (string folder in old.Take(Math.Max(0, own.Count - limit))) AtomicFolder.Remove(folder);
    }

    private TrainingState StateAt(StepBoundary boundary) => new()
    {
        Run = RunId,
        Position = boundary.Position,
        TorchRandom = boundary.TorchRandom,
        History = _history.State,
        SkippedSteps = SkippedSteps,
        Evaluations = Options.Evaluation.Strategy == EvaluationStrategy.None ? null : _evaluator.State,
        Rules = Rules(),
        Data = DataNow,
        Base = BaseNow,
    };

    private Dictionary<string, string> Rules() => ResumeRules.Of(Options, _group.WorldSize, TotalSteps, WarmupSteps, MaxLength, _data, _trained.Peft);

    /// <summary>What has to be the same in all processes of a group.</summary>
    private Dictionary<string, string> Settings() => new(Rules())
    {
        [nameof(StepsDone)] = StepsDone.ToString(CultureInfo.InvariantCulture),
        ["the number of samples"] = _data.Count.ToString(CultureInfo.InvariantCulture),
        ["the number of trained values"] = _trained.Trained.Sum(p => p.Parameter.numel()).ToString(CultureInfo.InvariantCulture),
        [nameof(TrainingOptions.SaveStrategy)] = Options.SaveStrategy.ToString(),
        [nameof(TrainingOptions.SaveSteps)] = Options.SaveSteps.ToString(CultureInfo.InvariantCulture),
        [nameof(TrainingOptions.Evaluation)] = Options.Evaluation.ToString(),
    };

    private DataFingerprint DataNow => _dataNow ??= DataFingerprint.Of(_data);

    private string BaseNow => _baseNow ??= FrozenWeights();

    /// <summary>Names, dtypes, shapes and sampled contents of all that is frozen; and of the checkpoint the base was loaded from, where quantisation keeps less.</summary>
    private string FrozenWeights()
    {
        using var fingerprint = new SampledFingerprint();
        foreach (var (name, parameter) in _trained.Parameters)
            if (!parameter.requires_grad) fingerprint.Add(name, parameter);
        foreach (var (name, buffer) in _trained.Model.named_buffers()) fingerprint.Add(name, buffer);
        return $"{fingerprint.Digest()} {_trained.Model.BaseFingerprint}".TrimEnd();
    }
}
