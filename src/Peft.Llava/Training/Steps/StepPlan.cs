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
    private readonly SampleOrder _order;

    /// <summary>Plans a training.</summary>
    /// <param name="options">Sound options.</param>
    /// <param name="sampleCount">Number of samples.</param>
    /// <param name="modalityLengths">For the orders by length: a length per sample, negative without an image.</param>
    /// <exception cref="TrainingDataException">There are no samples, or no full batch, or lengths are wanted and do not fit the samples.</exception>
    public StepPlan(TrainingOptions options, int sampleCount, IReadOnlyList<int>? modalityLengths = null)
    {
        ArgumentNullException.ThrowIfNull(options);
        _options = options;
        IReadOnlyList<int>? lengths = options.Ordering switch
        {
            SampleOrdering.ByModalityLength => modalityLengths,
            SampleOrdering.ByLength => modalityLengths?.Select(Math.Abs).ToList(),
            _ => null,
        };
        _order = new SampleOrder(options.Ordering, sampleCount, options.Seed, lengths, options.BatchSize, options.AccumulationSteps);
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
    public IEnumerable<PlannedStep> Steps(PlanPosition? from = null)
    {
        int number = from?.Steps ?? 0;
        int done = from?.Batches ?? 0;
        if (from is not null) _order.Restore(from.OrderState);
        var waiting = new List<int[]>();
        for (int epoch = from?.Epoch ?? 0; number < TotalSteps; epoch++)
        {
            var state = _order.State;
            int batch = done;
            foreach (int[] indices in _order.NextEpoch().Chunk(_options.BatchSize).Take(BatchesPerEpoch).Skip(done))
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
}
