namespace Peft.Llava;

/// <summary>How the samples of an epoch are ordered.</summary>
public enum SampleOrdering
{
    /// <summary>A random permutation per epoch.</summary>
    Shuffled,

    /// <summary>The order of the data set.</summary>
    Sequential,

    /// <summary>transformers' <c>group_by_length</c>.</summary>
    ByLength,

    /// <summary>LLaVA's <c>group_by_modality_length</c>.</summary>
    ByModalityLength,
}

/// <summary>
/// The order of samples, epoch by epoch, from the training seed alone and equal to LLaVA's under the same seed: before each epoch the data
/// loader draws an int64; a plain shuffle then draws one more that seeds a permutation of its own, and grouping continues with the stream.
/// </summary>
/// <remarks>LLaVA draws from torch's global generator, which dropout uses as well; ours has the stream to itself.</remarks>
public sealed class SampleOrder
{
    private readonly SampleOrdering _ordering;
    private readonly int _count;
    private IReadOnlyList<int> _lengths;
    private readonly int _batchSize;
    private readonly int _worldSize;
    private TorchRandom _random;

    /// <summary>Creates the order.</summary>
    /// <param name="ordering">Which order.</param>
    /// <param name="count">Number of samples.</param>
    /// <param name="seed">The training seed.</param>
    /// <param name="lengths">
    /// For the grouping orders a length per sample (for <see cref="SampleOrdering.ByModalityLength"/> negative without an image).
    /// </param>
    /// <param name="batchSize">Samples per micro-batch.</param>
    /// <param name="worldSize">Processes times accumulation steps.</param>
    /// <exception cref="TrainingDataException">There are no samples, or lengths are wanted and do not fit the samples.</exception>
    public SampleOrder(SampleOrdering ordering, int count, long seed, IReadOnlyList<int>? lengths = null, int batchSize = 1, int worldSize = 1)
    {
        if (count <= 0) throw new TrainingDataException("The data set is empty. Check the path and the filter it was read with.");
        _ordering = ordering;
        _count = count;
        _lengths = Fitting(lengths);
        _batchSize = batchSize;
        _worldSize = worldSize;
        _random = new TorchRandom(seed);
    }

    /// <summary>The stream's state before the next epoch is drawn.</summary>
    public IReadOnlyList<uint> State => _random.State;

    /// <summary>Continues from a recorded <see cref="State"/>.</summary>
    public void Restore(IReadOnlyList<uint> state) => _random = TorchRandom.Restore(state);

    /// <summary>Draws the order of the next epoch, whose samples have other lengths than those before: sample indices.</summary>
    /// <param name="lengths">A length per sample for the grouping orders; otherwise null.</param>
    /// <exception cref="TrainingDataException">Lengths are wanted and do not fit the samples; nothing was drawn.</exception>
    public int[] NextEpoch(IReadOnlyList<int>? lengths)
    {
        _lengths = Fitting(lengths);
        return NextEpoch();
    }

    /// <summary>Draws the order of the next epoch: sample indices.</summary>
    public int[] NextEpoch()
    {
        _random.NextInt64();
        return _ordering switch
        {
            SampleOrdering.Sequential => [.. Enumerable.Range(0, _count)],
            SampleOrdering.Shuffled => new TorchRandom(_random.NextInt64()).Permutation(_count),
            SampleOrdering.ByLength => LengthGrouping.ByLengthAsTransformers(_lengths, _batchSize * _worldSize, _random),
            _ => LengthGrouping.ByModality(_lengths, _batchSize, _worldSize, _random),
        };
    }

    private IReadOnlyList<int> Fitting(IReadOnlyList<int>? lengths)
    {
        bool grouped = _ordering is SampleOrdering.ByLength or SampleOrdering.ByModalityLength;
        if (grouped && lengths?.Count != _count)
            throw new TrainingDataException($"Ordering by length needs a length for each of the {_count} samples; {lengths?.Count ?? 0} were given. "
                + "Give the data set's lengths, or order by SampleOrdering.Shuffled.");
        return lengths ?? [];
    }
}
