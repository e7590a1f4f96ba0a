using System.Diagnostics;
using Peft.Core;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>
/// Trains a LLaVA as LLaVA's own script does: its parameter groups, schedules, order of samples and files, with steps weighted by supervised
/// tokens unless <see cref="TrainingOptions.Weighting"/> asks for LLaVA's own rule. Model, adapters and data stay the caller's.
/// </summary>
/// <remarks>Not for use by several threads at once. Writes nothing to a console: see <see cref="ITrainingObserver"/>.</remarks>
public sealed partial class LLaVATrainer : IDisposable
{
    private readonly TrainedModel _trained;
    private readonly ITrainingData _data;
    private readonly IReadOnlyList<ITrainingObserver> _observers;
    private readonly TrainingOptimizer _optimizer;
    private readonly StepPlan _plan;
    private readonly LearningRateSchedule _schedule;
    private readonly TrainingHistory _history = new();
    private readonly GradientScaler? _scaler;
    private readonly Evaluator _evaluator;
    private readonly IProcessGroup _group;
    private readonly GradientExchange _exchange;
    private EvaluationSource? _evaluated;
    private bool _began;
    private bool _moved;
    private StepBoundary? _boundary;

    /// <summary>Creates a trainer of adapters (and of the projector, by <see cref="TrainingOptions.Trainable"/>).</summary>
    /// <param name="peft">The adapters of a <see cref="LlavaModel"/>.</param>
    /// <param name="data">The samples.</param>
    /// <param name="options">The options.</param>
    /// <param name="observers">Who watches.</param>
    /// <exception cref="TrainingOptionsException">The options have problems, or the adapters are not on a <see cref="LlavaModel"/>.</exception>
    /// <exception cref="TrainingDataException">There are no samples, or no full batch.</exception>
    public LLaVATrainer(PeftModel peft, ITrainingData data, TrainingOptions options, params IReadOnlyList<ITrainingObserver> observers)
        : this(ModelOf(peft), peft, data, options, observers)
    {
    }

    /// <summary>
    /// Creates one process's trainer of a data-parallel training of adapters: each process has the same model on its own device and takes its part of
    /// every batch, gradients are added up, and only the first one saves. <see cref="TrainingOptions.BatchSize"/> is that of each process.
    /// </summary>
    /// <param name="peft">The adapters of a <see cref="LlavaModel"/>; the first process's weights count.</param>
    /// <param name="data">The samples, all of them in every process.</param>
    /// <param name="options">The options, the same in every process.</param>
    /// <param name="group">The processes; <see cref="InProcessGroup"/> makes them of threads.</param>
    /// <param name="observers">Who watches this process.</param>
    /// <exception cref="TrainingOptionsException">The options have problems, or the adapters are not on a <see cref="LlavaModel"/>.</exception>
    /// <exception cref="TrainingDataException">There are no samples, or no full batch.</exception>
    public LLaVATrainer(PeftModel peft, ITrainingData data, TrainingOptions options, IProcessGroup group, params IReadOnlyList<ITrainingObserver> observers)
        : this(ModelOf(peft), peft, data, options, observers, group)
    {
    }

    /// <summary>Creates a trainer of adapters on a data set, encoded for the adapters' model.</summary>
    /// <inheritdoc cref="LLaVATrainer(PeftModel, ITrainingData, TrainingOptions, IReadOnlyList{ITrainingObserver})"/>
    public LLaVATrainer(PeftModel peft, LlavaDataset data, TrainingOptions options, params IReadOnlyList<ITrainingObserver> observers)
        : this(peft, DataFor(ModelOf(peft), data, options), options, observers)
    {
    }

    /// <summary>Creates a trainer of a model without adapters: stage 1 (the projector alone) or full fine-tuning.</summary>
    /// <param name="model">The model.</param>
    /// <param name="data">The samples.</param>
    /// <param name="options">The options.</param>
    /// <param name="observers">Who watches.</param>
    /// <exception cref="TrainingOptionsException">The options have problems, or ask for adapters.</exception>
    /// <exception cref="TrainingDataException">There are no samples, or no full batch.</exception>
    public LLaVATrainer(LlavaModel model, ITrainingData data, TrainingOptions options, params IReadOnlyList<ITrainingObserver> observers)
        : this(model, null, data, options, observers)
    {
    }

    /// <summary>Creates a trainer of a model without adapters on a data set, encoded for the model: stage 1 (the projector alone) or full fine-tuning.</summary>
    /// <inheritdoc cref="LLaVATrainer(LlavaModel, ITrainingData, TrainingOptions, IReadOnlyList{ITrainingObserver})"/>
    public LLaVATrainer(LlavaModel model, LlavaDataset data, TrainingOptions options, params IReadOnlyList<ITrainingObserver> observers)
        : this(model, DataFor(model, data, options), options, observers)
    {
    }

    /// <summary>Creates one process's trainer of a data-parallel training without adapters: the projector alone, or the whole model.</summary>
    /// <param name="model">The model; the first process's weights count.</param>
    /// <param name="data">The samples, all of them in every process.</param>
    /// <param name="options">The options, the same in every process.</param>
    /// <param name="group">The processes.</param>
    /// <param name="observers">Who watches this process.</param>
    /// <exception cref="TrainingOptionsException">The options have problems, or ask for adapters.</exception>
    /// <exception cref="TrainingDataException">There are no samples, or no full batch.</exception>
    public LLaVATrainer(LlavaModel model, ITrainingData data, TrainingOptions options, IProcessGroup group, params IReadOnlyList<ITrainingObserver> observers)
        : this(model, null, data, options, observers, group)
    {
    }

    private LLaVATrainer(
        LlavaModel model, PeftModel? peft, ITrainingData data, TrainingOptions options, IReadOnlyList<ITrainingObserver> observers, IProcessGroup? group = null)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(data);
        ArgumentNullException.ThrowIfNull(options);
        options.ThrowIfInvalid();
        if (peft is null && (options.Trainable.Adapter || options.Trainable.FreezeAdapterAfterCreation))
            throw new TrainingOptionsException(["adapters are to be trained, but the model has none; call model.GetPeftModel(...) and give its result "
                + "to the trainer, or set Trainable to TrainableParts.Full() or ProjectorOnly()"]);
        if (peft is not null && (options.Trainable.LanguageModel || options.Trainable.Head))
            throw new TrainingOptionsException(["the language model itself is to be trained, but it carries adapters; unload them, or set Trainable to TrainableParts.Lora()"]);
        if (options.Trainable.Projector && model.Projector is null)
            throw new TrainingOptionsException(["the projector is to be trained, but the model has none; load a LLaVA, or set Trainable to TrainableParts.Lora(projector: false)"]);
        string[] problems = [.. HalfPrecision.Problems(model, peft, options), .. DeviceSettings.Problems(model, options)];
        if (problems.Length > 0) throw new TrainingOptionsException(problems);
        _group = group ?? SingleProcess.Instance;
        _exchange = new GradientExchange(_group);
        if (!_exchange.Alone && options.Weighting == StepWeighting.LlavaExact)
            throw new TrainingOptionsException([$"Weighting LlavaExact repeats runs of one process, and there are {_group.WorldSize}; choose StepWeighting.SupervisedTokens"]);
        MaxLength = LengthLimit.Of(options.MaxLength ?? data.MaxLength, model.Config, data.Tokenizer);
        if (data.MaxLength is int own && own != MaxLength)
            throw new TrainingOptionsException([$"MaxLength is {MaxLength}, and the data were made for {own} tokens; give both the same, or leave MaxLength null"]);
        Options = options = options with { MaxLength = MaxLength };
        _data = data;
        _observers = observers;
        _plan = new StepPlan(options with { BatchSize = options.BatchSize * _group.WorldSize }, data);
        WarmupSteps = LearningRateSchedule.WarmupFromRatio(options.WarmupSteps, options.WarmupRatio, _plan.TotalSteps);
        _schedule = new LearningRateSchedule(options.Schedule, WarmupSteps, _plan.TotalSteps, options.LearningRate, options.ScheduleCycles);
        _trained = new TrainedModel(model, peft, options.Trainable);
        _optimizer = OptimizerFactory.Create(options, _trained.Groups(options));
        _evaluator = new Evaluator(options.Evaluation, _exchange);
        _scaler = options.Precision == TrainingPrecision.Float16 ? new GradientScaler(options.LossScaling) : null;
    }

    /// <summary>The options.</summary>
    public TrainingOptions Options { get; }

    /// <summary>The longest sequence, image features included: <see cref="TrainingOptions.MaxLength"/>, or what stands for it.</summary>
    public int MaxLength { get; }

    /// <summary>What is evaluated during the training, when <see cref="TrainingOptions.Evaluation"/> says so; it stays the caller's.</summary>
    public EvaluationSource? Evaluation { get; init; }

    /// <summary>The evaluations so far.</summary>
    public IReadOnlyList<EvaluationReport> Evaluations => _evaluator.Reports;

    /// <summary>The best evaluation so far by <see cref="EvaluationOptions.MetricForBest"/>; null before the first.</summary>
    public EvaluationReport? BestEvaluation => _evaluator.Best;

    /// <summary>The model that is trained; it stays the caller's.</summary>
    public LlavaModel Model => _trained.Model;

    /// <summary>Steps of the whole training.</summary>
    public int TotalSteps => _plan.TotalSteps;

    /// <summary>Steps of warm-up.</summary>
    public int WarmupSteps { get; }

    /// <summary>Steps done.</summary>
    public int StepsDone { get; private set; }

    /// <summary>Steps of these that were skipped because a gradient overflowed in float16; the learning rate did not go on in them.</summary>
    public int SkippedSteps { get; private set; }

    /// <summary>The scale of the loss, in float16; null otherwise.</summary>
    public GradientScaler? Scaler => _scaler;

    /// <summary>The parameter groups, in LLaVA's order.</summary>
    public IReadOnlyList<ParameterGroup> Groups => _optimizer.Groups;

    /// <summary>The optimizer, for its state.</summary>
    public TrainingOptimizer Optimizer => _optimizer;

    /// <summary>Trains to the end, or until an observer stops it. Once per trainer.</summary>
    /// <param name="cancellation">
    /// Ends the training between two micro-batches. The model then has the weights of <see cref="StepsDone"/> steps; with a
    /// <see cref="TrainingOptions.SaveStrategy"/> a checkpoint of them is written, otherwise <see cref="SaveModel"/> saves them.
    /// </param>
    /// <returns>What was done.</returns>
    /// <exception cref="TrainingOptionsException">
    /// The <see cref="Evaluation"/> does not give what the options ask for, or the processes of a group have other options, samples or starting points.
    /// </exception>
    /// <exception cref="TrainingCanceledException">The token was cancelled.</exception>
    /// <exception cref="NonFiniteLossException">A loss or gradient is NaN or infinite; no weight has moved in that step.</exception>
    /// <exception cref="NoSupervisedTokensException">A step has nothing to learn (not in the LLaVA-exact mode).</exception>
    /// <exception cref="TrainingMemoryException">The memory did not suffice for a step.</exception>
    /// <exception cref="CheckpointSaveException">A checkpoint, or the trial before the first step, could not be written; nothing is lost.</exception>
    /// <exception cref="CheckpointException">The output folder has checkpoints of another run that this one would replace.</exception>
    /// <exception cref="FileWriteException">The output folder cannot be written.</exception>
    /// <exception cref="ProcessGroupException">Another process of the group has failed; the weights are those of <see cref="StepsDone"/> steps.</exception>
    public TrainingSummary Train(CancellationToken cancellation = default)
    {
        if (_began) throw new InvalidOperationException("This trainer has trained already. Make a new one; it starts from the weights as they are now.");
        if (EvaluationSource.Problems(Evaluation, Options.Evaluation) is { Count: > 0 } problems) throw new TrainingOptionsException(problems);
        _began = true;
        _evaluated = Evaluation is { Dataset: { } samples } ? Evaluation with { Data = DataFor(Model, samples, Options), Dataset = null } : Evaluation;
        if (GroupAgreement.Problems(_group, Settings()) is { Count: > 0 } differences) throw new TrainingOptionsException(differences);
        if (Saves) BeginRun();
        using var tf32 = Tf32.Use(Options);
        if (Saves) TrySave();
        var dropout = new TrainingDropout(Options.Seed, _group.Rank);
        using var mode = _trained.Training(Options, dropout);
        using var random = _resumed is null ? TorchSeed.Use(Options.Seed) : TorchSeed.Use(_resumed.TorchRandom);
        var step = new TrainStep(_trained.Model, _optimizer, Options.Weighting, Options.AccumulationSteps, Options.MaxGradNorm, _scaler, dropout, _exchange);
        _exchange.ShareWeights(_trained.Trained);
        var start = new TrainingStart(_plan.TotalSteps, _plan.BatchesPerEpoch, _data.Count, WarmupSteps, Groups) { Trainer = this };
        Watch(() =>
        {
            foreach (var observer in _observers) observer.OnStart(start);
        });
        var whole = Stopwatch.StartNew();
        bool stopped = _evaluator.Stops;
        try
        {
            using var batches = new BatchSource(_data, _plan.Steps(_resumed?.Position, cancellation).Select(s => _exchange.PartOf(s, Options.BatchSize)), Options.DataWorkers, cancellation);
            while (!stopped && Next(batches, step, cancellation) is { } report) stopped = _exchange.Any(Observe(report) | _evaluator.Stops);
        }
        catch (Exception e) when (cancellation.IsCancellationRequested && e is OperationCanceledException or ProcessGroupException)
        {
            if (Saves && Options.SaveStrategy != SaveStrategy.None && _boundary is { } last && last != _saved) SaveCheckpoint(last);
            throw new TrainingCanceledException(StepsDone, _plan.TotalSteps, e, cancellation, _boundary is not null && _boundary == _saved ? LastCheckpoint : null);
        }
        if (Options.Evaluation.LoadBestAtEnd && _evaluator.Best is { } best) LoadBest(best);
        var summary = _history.Finish(whole.Elapsed.TotalSeconds, stopped && StepsDone < _plan.TotalSteps) with { Best = _evaluator.Best };
        foreach (var observer in _observers) observer.OnEnd(summary);
        return summary;
    }

    private StepReport? Next(BatchSource batches, TrainStep step, CancellationToken cancellation)
    {
        var clock = Stopwatch.StartNew();
        if (batches.Next() is not { } work) return null;
        using (work)
        {
            double wait = clock.Elapsed.TotalSeconds;
            SetRates(StepsDone - SkippedSteps);
            double[] rates = [.. Groups.Select(g => g.Rate)];
            double scale = _scaler?.Scale ?? 1;
            var result = Run(step, work, cancellation);
            StepsDone++;
            if (result.Skipped) SkippedSteps++;
            else _moved |= result.Norm.Norm > 0 && rates.Any(r => r > 0);
            SetRates(StepsDone - SkippedSteps);
            var report = new StepReport
            {
                Step = work.Plan.Number,
                TotalSteps = _plan.TotalSteps,
                Epoch = work.Plan.Epoch,
                Loss = result.Loss,
                MicroLosses = result.MicroLosses,
                SampleIds = [.. work.Batches.Select(b => b.SampleIds)],
                GradNorm = result.Norm.Norm,
                Clipped = !result.Skipped && Options.MaxGradNorm > 0 && result.Norm.Norm > Options.MaxGradNorm,
                Skipped = result.Skipped,
                LossScale = scale,
                Rates = rates,
                NextRates = [.. Groups.Select(g => g.Rate)],
                Tokens = result.Tokens,
                SupervisedTokens = result.SupervisedTokens,
                Seconds = clock.Elapsed.TotalSeconds,
                DataWaitSeconds = wait,
                ComputeSeconds = result.ComputeSeconds,
            };
            _history.Add(report, Options.LoggingSteps, 6 * _exchange.Sum(work.Batches.Sum(b => (double)b.PaddedTextTokens)) * _trained.SizeBesideEmbeddings);
            _boundary = new StepBoundary(work.Plan.After, TorchSeed.State());
            report = report with { Evaluation = Evaluate(work.Plan, report.Loss, cancellation) };
            bool keepsBest = Options.Evaluation.LoadBestAtEnd && report.Evaluation is { IsBest: true };
            if (keepsBest) _bestFolder = Path.Combine(Options.OutputDirectory, TrainingCheckpoint.NameOf(report.Step));
            if (keepsBest || IsCheckpoint(work.Plan))
            {
                string folder = SaveCheckpoint(_boundary);
                _group.Barrier();   // whole now, whoever wrote it
                (_saved, LastCheckpoint) = (_boundary, folder);
            }
            return report;
        }
    }

    /// <summary>Whether this process writes files.</summary>
    private bool Saves => _group.Rank == 0;

    private EvaluationReport? Evaluate(PlannedStep step, double loss, CancellationToken cancellation)
    {
        using var random = TorchSeed.Keep();
        return _evaluator.After(step, loss, _plan.TotalSteps, Model, _evaluated, cancellation);
    }

    private StepResult Run(TrainStep step, StepWork work, CancellationToken cancellation)
    {
        try
        {
            return step.Run(work.Plan.Number, work.Batches, () => OnGradients(work.Plan.Number), cancellation);
        }
        catch (Exception e) when (OutOfMemory.Is(e))
        {
            throw OutOfMemory.Describe(e, work, _trained, Options, step.UpdateBegan, LastCheckpoint);
        }
    }

    private bool Observe(StepReport report)
    {
        bool stop = false;
        Watch(() =>
        {
            foreach (var observer in _observers) stop |= observer.OnStep(report) == TrainingVerdict.Stop;
        });
        return stop;
    }

    private void OnGradients(int step) => Watch(() =>
    {
        foreach (var observer in _observers) observer.OnGradients(step, Groups);
    });

    /// <summary>Observers may evaluate, generate and sample: what they draw from torch's generator is put back.</summary>
    private void Watch(Action observers)
    {
        if (_observers.Count == 0) return;
        using var random = TorchSeed.Keep();
        observers();
    }

    private void SetRates(int stepsDone)
    {
        double factor = _schedule.Factor(stepsDone);
        foreach (var group in Groups) group.Rate = group.BaseRate * factor;
    }

    private bool IsCheckpoint(PlannedStep step) => Options.SaveStrategy switch
    {
        SaveStrategy.Steps => step.Number % Options.SaveSteps == 0,
        SaveStrategy.Epoch => step.EndsEpoch,
        _ => false,
    };

    /// <summary>Where a step ended: what a checkpoint of it needs beside the weights, even if the next step was begun.</summary>
    private sealed record StepBoundary(PlanPosition Position, byte[] TorchRandom);

    private static LlavaTrainingData DataFor(LlavaModel model, LlavaDataset data, TrainingOptions options)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(data);
        ArgumentNullException.ThrowIfNull(options);
        return new LlavaTrainingData(data, model.Config, options.MaxLength);
    }

    private static LlavaModel ModelOf(PeftModel peft)
    {
        ArgumentNullException.ThrowIfNull(peft);
        return peft.BaseModel as LlavaModel ?? throw new TrainingOptionsException(
            [$"the adapters are on a {peft.BaseModel.GetType().Name}, and this trainer trains a LlavaModel; call GetPeftModel on a LlavaModel"]);
    }

    /// <summary>Releases the optimizer's state. The model stays the caller's.</summary>
    public void Dispose() => _optimizer.Dispose();
}
