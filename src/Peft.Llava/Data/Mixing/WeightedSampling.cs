namespace Peft.Llava;

/// <summary>When an epoch over several sources ends.</summary>
public enum MixtureStopping
{
    /// <summary>Before a source would have to repeat a sample: the largest epoch of the given proportions without repetition.</summary>
    FirstExhausted,

    /// <summary>When every source has been gone through: the smallest epoch of the given proportions that shows every sample.</summary>
    AllExhausted,
}

/// <summary>
/// Draws epochs from several sources by weight. Every epoch has the same number of samples of each source, which are the weights' shares rounded to
/// whole samples; a source goes through all of its samples in a random order before it begins anew, over the ends of epochs as well.
/// </summary>
/// <remarks>
/// The sources lie one after another in one numbering. The two endings are those of <c>datasets.interleave_datasets</c>; that function draws the source
/// of each sample by chance, so its epochs come close to the weights and differ in length from seed to seed, while these are exact and equally long.
/// </remarks>
public sealed class WeightedSampling : IEpochSampling
{
    private const double Rounding = 1e-9;
    private readonly int[] _sizes;
    private readonly int[] _offsets;
    private readonly int[] _quotas;

    /// <summary>Creates the sampling.</summary>
    /// <param name="names">The sources' names, for messages.</param>
    /// <param name="sizes">Samples of each source.</param>
    /// <param name="weights">The weight of each source's samples in an epoch; only their ratio counts.</param>
    /// <param name="stopping">When an epoch ends.</param>
    /// <param name="samplesPerEpoch">The length of an epoch; null to let <paramref name="stopping"/> decide.</param>
    /// <exception cref="TrainingDataException">A source is empty, a weight is not positive, or an epoch would be empty, leave a source out, or be too long.</exception>
    public WeightedSampling(
        IReadOnlyList<string> names, IReadOnlyList<int> sizes, IReadOnlyList<double> weights, MixtureStopping stopping = MixtureStopping.FirstExhausted,
        int? samplesPerEpoch = null)
    {
        ArgumentNullException.ThrowIfNull(names);
        ArgumentNullException.ThrowIfNull(sizes);
        ArgumentNullException.ThrowIfNull(weights);
        if (names.Count == 0 || names.Count != sizes.Count || names.Count != weights.Count)
            throw new ArgumentException($"There are {names.Count} names, {sizes.Count} sizes and {weights.Count} weights; give one of each per source, at least one.");
        for (int i = 0; i < names.Count; i++)
        {
            if (sizes[i] <= 0) throw new TrainingDataException($"The source '{names[i]}' has no samples. Leave it out, or check its file.");
            if (!(weights[i] > 0 && double.IsFinite(weights[i])))
                throw new TrainingDataException($"The weight {weights[i]:R} of the source '{names[i]}' is not a positive number. Leave the source out, or give it one.");
        }
        double sum = weights.Sum();
        double[] shares = [.. weights.Select(w => w / sum)];
        SamplesPerEpoch = samplesPerEpoch ?? LengthOf(sizes, shares, stopping);
        if (SamplesPerEpoch <= 0) throw new TrainingDataException($"An epoch of {SamplesPerEpoch} samples is asked for. Ask for at least one per source.");
        _quotas = Quotas(shares, SamplesPerEpoch);
        int none = Array.IndexOf(_quotas, 0);
        if (none >= 0)
            throw new TrainingDataException($"The source '{names[none]}' would have no sample in an epoch of {SamplesPerEpoch}. Raise its weight, make the epoch longer, or leave it out.");
        _sizes = [.. sizes];
        _offsets = new int[_sizes.Length];
        for (int i = 1; i < _sizes.Length; i++) _offsets[i] = checked(_offsets[i - 1] + _sizes[i - 1]);
        Rule = string.Join(", ", names.Select((name, i) => $"{_quotas[i]} of {_sizes[i]} of {name}"));
    }

    /// <inheritdoc/>
    public int SamplesPerEpoch { get; }

    /// <inheritdoc/>
    public string Rule { get; }

    /// <summary>Samples that each source gives to every epoch.</summary>
    public IReadOnlyList<int> SamplesPerSource => _quotas;

    /// <summary>The first number of each source's samples.</summary>
    public IReadOnlyList<int> Offsets => _offsets;

    /// <inheritdoc/>
    /// <remarks>The sources lie spread evenly over the result.</remarks>
    public int[] Draw(int epoch, long seed)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(epoch);
        return [.. Enumerable.Range(0, _quotas.Length).SelectMany(source => FromSource(source, epoch, seed)).OrderBy(d => d.Place).ThenBy(d => d.Source).Select(d => d.Sample)];
    }

    private IEnumerable<(double Place, int Source, int Sample)> FromSource(int source, int epoch, long seed)
    {
        int[]? order = null;
        long pass = -1;
        for (int i = 0; i < _quotas[source]; i++)
        {
            var (itsPass, place) = Math.DivRem((long)epoch * _quotas[source] + i, _sizes[source]);
            if (order is null || itsPass != pass) order = new TorchRandom(Seed(seed, source, pass = itsPass)).Permutation(_sizes[source]);
            yield return ((i + 0.5) / _quotas[source], source, _offsets[source] + order[place]);
        }
    }

    /// <summary>A seed per source and pass that has nothing to do with its neighbours' (the finalizer of SplitMix64).</summary>
    private static long Seed(long seed, int source, long pass)
        => (long)SplitMix64.Finalise(unchecked((ulong)seed * SplitMix64.Gamma + ((ulong)source << 40) + (ulong)pass + 1));

    private static int LengthOf(IReadOnlyList<int> sizes, double[] shares, MixtureStopping stopping)
    {
        var lengths = sizes.Select((size, i) => size / shares[i]);
        double length = stopping == MixtureStopping.FirstExhausted
            ? Math.Floor(lengths.Min() * (1 + Rounding))
            : Math.Ceiling(lengths.Max() * (1 - Rounding));
        return length <= int.MaxValue ? (int)length
            : throw new TrainingDataException($"With these weights an epoch would have {length:R} samples. Give the number of samples per epoch, or weights nearer to the sizes.");
    }

    /// <summary>Whole samples by the largest remainder.</summary>
    private static int[] Quotas(double[] shares, int length)
    {
        double[] exact = [.. shares.Select(s => s * length)];
        int[] quotas = [.. exact.Select(e => (int)Math.Floor(e + Rounding * Math.Max(1, e)))];
        int missing = length - quotas.Sum();
        foreach (int i in Enumerable.Range(0, quotas.Length).OrderByDescending(i => exact[i] - quotas[i]).ThenBy(i => i).Take(missing)) quotas[i]++;
        return quotas;
    }
}
