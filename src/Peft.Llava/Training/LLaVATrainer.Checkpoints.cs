using System.Buffers.Binary;
using System.Globalization;
using System.Security.Cryptography;
using Peft.Core;
using static TorchSharp.torch;

namespace Peft.Llava;

public sealed partial class LLaVATrainer
{
    private TrainingState? _resumed;
    private string? _bestFolder;
    private StepBoundary? _saved;

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
        if (state.Data != DataFingerprint()) problems.Add("the data set is another one, or in another order");
        if (state.Base != BaseFingerprint()) problems.Add("the base model is another one");
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
    }

    /// <summary>A checkpoint folder appears whole or not at all: it is written under another name, read back, and renamed.</summary>
    private void SaveCheckpoint(StepBoundary boundary)
    {
        string name = TrainingCheckpoint.NameOf(boundary.Position.Steps);
        using var folder = AtomicFolder.Begin(Path.Combine(Options.OutputDirectory, name));
        string pending = folder.PendingPath;
        Save(pending, useCache: false);
        if (BaseFolder is { } source) OutputFolder.CopyCompanions(source, pending, Options.MaxLength);
        using (NewDisposeScope()) SafetensorsWriter.Write(Path.Combine(pending, TrainingState.OptimizerFileName), _optimizer.State, SafetensorsWriter.PyTorchMetadata);
        _scaler?.Save(Path.Combine(pending, TrainingState.ScalerFileName));
        StateAt(boundary).Write(pending);
        Verify(pending);
        folder.Commit();
        _saved = boundary;
        RemoveOldCheckpoints();
    }

    /// <summary>Puts the weights of the best evaluation into the model.</summary>
    private void LoadBest(EvaluationReport best)
    {
        if (best.Step == StepsDone) return;
        using var weights = new SavedWeights(_bestFolder!, _trained);
        weights.CopyTo([.. _trained.Trained]);
    }

    private void Verify(string folder)
    {
        using var weights = new SavedWeights(folder, _trained);
        weights.Verify([.. _trained.Trained]);
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
        Data = DataFingerprint(),
        Base = BaseFingerprint(),
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
        [nameof(TrainingOptions.MaxLength)] = Options.MaxLength.ToString(CultureInfo.InvariantCulture),
    };

    private string DataFingerprint()
    {
        byte[] lengths = new byte[4 * _data.Count];
        for (int i = 0; i < _data.Count; i++) BinaryPrimitives.WriteInt32LittleEndian(lengths.AsSpan(4 * i), _data.ModalityLengths[i]);
        return Convert.ToHexStringLower(SHA256.HashData(lengths));
    }

    /// <summary>Names, dtypes and shapes of all frozen parameters, and the contents of the vectors among them: enough to know the base, at no cost.</summary>
    private string BaseFingerprint()
    {
        var frozen = _trained.Parameters.Where(p => !p.Parameter.requires_grad).ToList();
        var index = frozen.SelectMany(p => System.Text.Encoding.UTF8.GetBytes($"{p.Name} {p.Parameter.dtype} ({string.Join(',', p.Parameter.shape)})\n")).ToArray();
        var vectors = frozen.Where(p => p.Parameter.dim() == 1).ToDictionary(p => p.Name, p => (Tensor)p.Parameter, StringComparer.Ordinal);
        return Convert.ToHexStringLower(SHA256.HashData([.. index, .. System.Text.Encoding.UTF8.GetBytes(TensorFingerprint.OfContent(vectors))]));
    }

    private string? BaseFolder
        => Path.GetDirectoryName(_trained.Model.Config.Source) is { Length: > 0 } source && Directory.Exists(source) ? source : null;
}
