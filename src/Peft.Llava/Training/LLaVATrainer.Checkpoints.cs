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
    /// and log. On the CPU in float32 the run then ends with the bits of one that was never interrupted.
    /// </summary>
    /// <param name="checkpoint">A <c>checkpoint-N</c> folder; see <see cref="TrainingCheckpoint.Latest"/>.</param>
    /// <exception cref="CheckpointException">The folder is no checkpoint, or was written by another version.</exception>
    /// <exception cref="StateMismatchException">Base, data or options are others than those of the checkpoint; nothing has changed.</exception>
    public void ResumeFrom(string checkpoint)
    {
        ArgumentNullException.ThrowIfNull(checkpoint);
        if (_began) throw new InvalidOperationException("This trainer has trained already. Make a new one and call its ResumeFrom before Train.");
        var state = TrainingState.Read(checkpoint);
        var problems = Rules().Where(r => state.Rules.GetValueOrDefault(r.Key) != r.Value)
            .Select(r => $"{r.Key} is {r.Value} and was {state.Rules.GetValueOrDefault(r.Key, "not there")}").ToList();
        if (state.Data.DifferenceTo(DataNow) is { } difference) problems.Add(difference);
        if (state.Base != BaseNow) problems.Add("the base model is another one");
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
        LastCheckpoint = checkpoint;
    }

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
            using var folder = AtomicFolder.Begin(target);
            Fill(folder.PendingPath, boundary);
            folder.Commit();
            _saved = boundary;
            LastCheckpoint = target;
            RemoveOldCheckpoints();
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
        if (boundary is not null) StateAt(boundary).Write(folder);
    }

    private void RemoveOldCheckpoints()
    {
        if (Options.SaveTotalLimit is not int limit) return;
        // The best one stays and counts, the newest one stays in any case: transformers' rule.
        int bestStep = Options.Evaluation.LoadBestAtEnd ? _evaluator.Best?.Step ?? -1 : -1;
        var all = TrainingCheckpoint.All(Options.OutputDirectory);
        var old = all.Where(c => c.Step != bestStep && c != all[^1]).Select(c => c.Folder).ToList();
        foreach (string folder in old.Take(Math.Max(0, all.Count - limit))) AtomicFolder.Remove(folder);
    }

    private TrainingState StateAt(StepBoundary boundary) => new()
    {
        Position = boundary.Position,
        TorchRandom = boundary.TorchRandom,
        History = _history.State,
        SkippedSteps = SkippedSteps,
        Evaluations = Options.Evaluation.Strategy == EvaluationStrategy.None ? null : _evaluator.State,
        Rules = Rules(),
        Data = DataNow,
        Base = BaseNow,
    };

    private Dictionary<string, string> Rules() => new()
    {
        [nameof(TrainingOptions.BatchSize)] = (Options.BatchSize * _group.WorldSize).ToString(CultureInfo.InvariantCulture),
        [nameof(TrainingOptions.AccumulationSteps)] = Options.AccumulationSteps.ToString(CultureInfo.InvariantCulture),
        [nameof(TrainingOptions.DropLastBatch)] = Options.DropLastBatch.ToString(),
        [nameof(TrainingOptions.Ordering)] = Options.Ordering.ToString(),
        [nameof(TrainingOptions.LongestBatchFirst)] = Options.LongestBatchFirst.ToString(),
        [nameof(ITrainingData.Sampling)] = _data.Sampling?.Rule ?? "every sample once",
        [nameof(TrainingOptions.Weighting)] = Options.Weighting.ToString(),
        [nameof(TrainingOptions.Seed)] = Options.Seed.ToString(CultureInfo.InvariantCulture),
        [nameof(TrainingOptions.Optimizer)] = Options.Optimizer.ToString(),
        [nameof(TrainingOptions.MaxLength)] = MaxLength.ToString(CultureInfo.InvariantCulture),
    };

    /// <summary>What has to be the same in all processes of a group.</summary>
    private Dictionary<string, string> Settings() => new(Rules())
    {
        [nameof(StepsDone)] = StepsDone.ToString(CultureInfo.InvariantCulture),
        [nameof(TotalSteps)] = TotalSteps.ToString(CultureInfo.InvariantCulture),
        ["the number of samples"] = _data.Count.ToString(CultureInfo.InvariantCulture),
        ["the number of trained values"] = _trained.Trained.Sum(p => p.Parameter.numel()).ToString(CultureInfo.InvariantCulture),
        [nameof(TrainingOptions.LearningRate)] = Options.LearningRate.ToString(CultureInfo.InvariantCulture),
        [nameof(TrainingOptions.MaxGradNorm)] = Options.MaxGradNorm.ToString(CultureInfo.InvariantCulture),
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
