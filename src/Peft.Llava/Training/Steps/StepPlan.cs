namespace Peft.Llava;

/// <summary>One optimizer step that is to be done.</summary>
/// <param name="Number">From 1.</param>
/// <param name="MicroBatches">The samples of each micro-batch.</param>
/// <param name="Epoch">How many epochs are done after it, as transformers counts: 1.5 is the middle of the second.</param>
/// <param name="EndsEpoch">Whether it holds the last samples of an epoch.</param>
/// <param name="After">Where the plan stands after it.</param>
public sealed record PlannedStep(int Number, IReadOnlyList<int[]> MicroBatches, double Epoch, bool EndsEpoch, PlanPosition After);

/// <summary>A place in a <see cref="StepPlan"/> from which it can go on.</summary>
/// <param name="Steps">Steps before it.</param>
/// <param name="Epoch">The epoch it is in, from 0.</param>
/// <param name="Batches">Micro-batches of that epoch before it.</param>
/// <param name="OrderState">The state of <see cref="SampleOrder"/> before that epoch was drawn.</param>
public sealed record PlanPosition(int Steps, int Epoch, int Batches, IReadOnlyList<uint> OrderState);

/// <summary>Which samples each step takes: the arithmetic of epochs, batches and accumulation.</summary>
public sealed class StepPlan
{
    private readonly TrainingOptions _options;
    private readonly Func<SampleOrder> _newOrder;
    private readonly SampleOrder _order;
    private readonly ITrainingData? _data;

    /// <summary>Plans a training on data of its own sampling, if it has one.</summary>
    /// <param name="options">Sound options.</param>
    /// <param name="data">The samples.</param>
    /// <exception cref="TrainingDataException">There are no samples, or no full batch, or lengths are wanted and do not fit the samples.</exception>
    public StepPlan(TrainingOptions options, ITrainingData data)
        : this(options, CountOf(data), LengthsOf(data, options))
        => _data = data;

    /// <summary>Plans a training.</summary>
    /// <param name="options">Sound options.</param>
    /// <param name="sampleCount">Number of samples.</param>
    /// <param name="modalityLengths">For the orders by length: a length per sample, negative without an image.</param>
    /// <exception cref="TrainingDataException">There are no samples, or no full batch, or lengths are wanted and do not fit the samples.</exception>
    public StepPlan(TrainingOptions options, int sampleCount, IReadOnlyList<int>? modalityLengths = null)
    {
        ArgumentNullException.ThrowIfNull(options);
        _options = options;
        _newOrder = () => new SampleOrder(
            options.Ordering, sampleCount, options.Seed, OrderLengths(modalityLengths, options.Ordering), options.BatchSize, options.AccumulationSteps);
        _order = _newOrder();
        BatchesPerEpoch = options.DropLastBatch ? sampleCount / options.BatchSize : (sampleCount + options.BatchSize - 1) / options.BatchSize;
        if (BatchesPerEpoch == 0)
            throw new TrainingDataException($"{sampleCount} samples make no full batch of {options.BatchSize}. Lower BatchSize, or set DropLastBatch to false.");

        // transformers counts whole steps only, since what is left of an epoch goes into the next one's first step.
        int stepsPerEpoch = Exact
            ? Math.Max(1, BatchesPerEpoch / options.AccumulationSteps)
            : (BatchesPerEpoch + options.AccumulationSteps - 1) / options.AccumulationSteps;
        TotalSteps = options.MaxSteps > 0 ? options.MaxSteps : (int)Math.Ceiling(options.Epochs * stepsPerEpoch);
        EpochCount = options.MaxSteps > 0 ? (options.MaxSteps + stepsPerEpoch - 1) / stepsPerEpoch : (int)Math.Ceiling(options.Epochs);
    }

    /// <summary>Micro-batches of one epoch.</summary>
    public int BatchesPerEpoch { get; }

    /// <summary>Steps of the whole training.</summary>
    public int TotalSteps { get; }

    /// <summary>Epochs begun in the whole training.</summary>
    public int EpochCount { get; }

    private bool Exact => _options.Weighting == StepWeighting.LlavaExact;

    /// <summary>The steps, drawn as they are asked for. Enumerate once.</summary>
    /// <param name="from">Where to go on; null for the beginning.</param>
    /// <param name="cancellation">Stops the counting of tokens before the first epoch (<see cref="TrainingOptions.LongestBatchFirst"/>).</param>
    public IEnumerable<PlannedStep> Steps(PlanPosition? from = null, CancellationToken cancellation = default)
    {
        int number = from?.Steps ?? 0;
        int done = from?.Batches ?? 0;
        if (from is not null) _order.Restore(from.OrderState);
        var waiting = new List<int[]>();
        for (int epoch = from?.Epoch ?? 0; number < TotalSteps; epoch++)
        {
            var state = _order.State;
            int batch = done;
            foreach (int[] indices in Epoch(epoch, cancellation).Skip(done))
            {
                batch++;
                waiting.Add(indices);
                bool last = batch == BatchesPerEpoch;
                bool full = waiting.Count == _options.AccumulationSteps;
                // LLaVA's trainer steps at an epoch's end only if the whole epoch is shorter than one step.
                if (!full && !(last && (!Exact || BatchesPerEpoch <= _options.AccumulationSteps))) continue;
                number++;
                yield return new PlannedStep(number, [.. waiting], epoch + (double)batch / BatchesPerEpoch, last, new PlanPosition(number, epoch, batch, state));
                waiting.Clear();
                if (number == TotalSteps) yield break;
            }
            done = 0;
        }
    }

    /// <summary>The stream of the order at a place: behind the draws of the epoch that it is in, as torch's generator stands there in a peer's run.</summary>
    internal TorchRandom StreamAt(PlanPosition position)
    {
        var order = _newOrder();
        order.Restore(position.OrderState);
        order.NextEpoch();
        return TorchRandom.Restore(order.State);
    }

    /// <summary>The micro-batches of the next epoch.</summary>
    private IReadOnlyList<int[]> Epoch(int epoch, CancellationToken cancellation)
    {
        int[] order = _data?.Sampling is { } sampling ? Drawn(sampling.Draw(epoch, _options.Seed), _data) : _order.NextEpoch();
        int[][] batches = [.. order.Chunk(_options.BatchSize).Take(BatchesPerEpoch)];
        if (!_options.LongestBatchFirst || epoch > 0 || _data is null) return batches;
        return LongestFirst.Swap(batches, [.. _data.CountTokens(cancellation).Select(t => Math.Min(t, _options.MaxLength ?? int.MaxValue))]);
    }

    private int[] Drawn(int[] drawn, ITrainingData data)
        => [.. _order.NextEpoch(OrderLengths([.. drawn.Select(i => data.ModalityLengths[i])], _options.Ordering)).Select(place => drawn[place])];

    private static int CountOf(ITrainingData data)
    {
        ArgumentNullException.ThrowIfNull(data);
        return data.Sampling?.SamplesPerEpoch ?? data.Count;
    }

    private static IReadOnlyList<int> LengthsOf(ITrainingData data, TrainingOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        return data.Sampling is { } sampling ? [.. sampling.Draw(0, options.Seed).Select(i => data.ModalityLengths[i])] : data.ModalityLengths;
    }

    private static IReadOnlyList<int>? OrderLengths(IReadOnlyList<int>? modalityLengths, SampleOrdering ordering) => ordering switch
    {
        SampleOrdering.ByModalityLength => modalityLengths,
        SampleOrdering.ByLength => modalityLengths?.Select(Math.Abs).ToList(),
        _ => null,
    };
}
