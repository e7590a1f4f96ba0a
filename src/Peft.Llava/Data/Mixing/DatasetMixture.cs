namespace Peft.Llava;

/// <summary>A data set of a <see cref="DatasetMixture"/>.</summary>
/// <param name="Name">Its name: comes before its samples' ids, so that ids of several data sets stay apart.</param>
/// <param name="Dataset">The samples, with the encoder of this data set: image folder, template and options may differ between sources.</param>
/// <param name="Weight">The weight of its samples in an epoch; only the ratio to the others' counts.</param>
public sealed record MixtureSource(string Name, LlavaDataset Dataset, double Weight = 1);

/// <summary>Several data sets that are trained on together, each with a share of every epoch (see <see cref="WeightedSampling"/>).</summary>
public sealed class DatasetMixture
{
    /// <summary>Creates a mixture.</summary>
    /// <param name="sources">The data sets, at least one.</param>
    /// <param name="stopping">When an epoch ends.</param>
    /// <param name="samplesPerEpoch">The length of an epoch; null to let <paramref name="stopping"/> decide.</param>
    /// <exception cref="TrainingDataException">
    /// Names are empty or equal, sources encode for different models, or weights and sizes give no epoch; see <see cref="WeightedSampling"/>.
    /// </exception>
    public DatasetMixture(
        IReadOnlyList<MixtureSource> sources, MixtureStopping stopping = MixtureStopping.FirstExhausted, int? samplesPerEpoch = null)
    {
        ArgumentNullException.ThrowIfNull(sources);
        if (sources.Count == 0) throw new TrainingDataException("The mixture has no sources. Give it at least one data set.");
        if (sources.FirstOrDefault(s => string.IsNullOrWhiteSpace(s.Name)) is { } nameless)
            throw new TrainingDataException($"Source number {sources.ToList().IndexOf(nameless)} has no name. Give it one, which its samples' ids then begin with.");
        if (sources.GroupBy(s => s.Name).FirstOrDefault(g => g.Count() > 1) is { } twice)
            throw new TrainingDataException($"{twice.Count()} sources are called '{twice.Key}'. Give each a name of its own.");
        var first = sources[0].Dataset.Encoder;
        foreach (var source in sources.Skip(1))
        {
            var encoder = source.Dataset.Encoder;
            if (encoder.Processor.Tokenizer != first.Processor.Tokenizer)
                throw new TrainingDataException($"The sources '{sources[0].Name}' and '{source.Name}' have different tokenizers. Build their processors with the same tokenizer.");
            if (encoder.Options.MaskPaddingIds != first.Options.MaskPaddingIds || encoder.Options.ZeroImageForTextOnly != first.Options.ZeroImageForTextOnly)
                throw new TrainingDataException($"The sources '{sources[0].Name}' and '{source.Name}' differ in MaskPaddingIds or ZeroImageForTextOnly, which hold for a batch as a whole. "
                    + "Give them the same.");
        }
        Sources = [.. sources.Select(s => s with { Dataset = Named(s) })];
        Sampling = new WeightedSampling([.. sources.Select(s => s.Name)], [.. sources.Select(s => s.Dataset.Count)], [.. sources.Select(s => s.Weight)], stopping, samplesPerEpoch);
        Count = sources.Sum(s => s.Dataset.Count);
    }

    /// <summary>The data sets, their samples' ids with the source's name in front: <c>name/id</c>.</summary>
    public IReadOnlyList<MixtureSource> Sources { get; }

    /// <summary>What an epoch takes.</summary>
    public WeightedSampling Sampling { get; }

    /// <summary>Samples of all sources.</summary>
    public int Count { get; }

    /// <summary>The source of a sample, and its place there.</summary>
    /// <param name="index">The sample's number in the mixture: the sources lie one after another.</param>
    public (LlavaDataset Dataset, int Place) Find(int index)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(index);
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(index, Count);
        int source = Sources.Count - 1;
        while (Sampling.Offsets[source] > index) source--;
        return (Sources[source].Dataset, index - Sampling.Offsets[source]);
    }

    private static LlavaDataset Named(MixtureSource source)
        => new([.. source.Dataset.Samples.Select(s => s with { Id = $"{source.Name}/{s.Id}" })], source.Dataset.Encoder);
}
