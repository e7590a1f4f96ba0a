namespace Peft.Llava;

/// <summary>A <see cref="DatasetMixture"/> as a trainer reads it: encoded, merged and cut for one model.</summary>
public sealed class MixtureTrainingData : ITrainingData
{
    private readonly LlavaTrainingData[] _sources;
    private readonly Dictionary<LlavaDataset, LlavaDataset> _limited = [];

    /// <summary>Creates it.</summary>
    /// <param name="mixture">The data sets.</param>
    /// <param name="config">The model's configuration, with the tower's sizes.</param>
    /// <param name="maxLength">The longest merged sequence; null for what the model was made for.</param>
    public MixtureTrainingData(DatasetMixture mixture, LlavaConfig config, int? maxLength = null)
    {
        ArgumentNullException.ThrowIfNull(mixture);
        Mixture = mixture;
        _sources = [.. mixture.Sources.Select(s => new LlavaTrainingData(s.Dataset, config, maxLength))];
        foreach (var (source, data) in mixture.Sources.Zip(_sources)) _limited[source.Dataset] = data.Dataset;
        ModalityLengths = [.. _sources.SelectMany(s => s.ModalityLengths)];
    }

    /// <summary>The data sets.</summary>
    public DatasetMixture Mixture { get; }

    /// <inheritdoc/>
    public int Count => Mixture.Count;

    /// <inheritdoc/>
    public IReadOnlyList<int> ModalityLengths { get; }

    /// <summary>The longest merged sequence.</summary>
    public int MaxLength => _sources[0].MaxLength;

    int? ITrainingData.MaxLength => MaxLength;

    /// <inheritdoc/>
    public IEpochSampling Sampling => Mixture.Sampling;

    /// <inheritdoc/>
    public LlamaTokenizer Tokenizer => _sources[0].Tokenizer;

    /// <inheritdoc/>
    public IReadOnlyList<int> CountTokens(CancellationToken cancellation = default) => [.. _sources.SelectMany(s => s.CountTokens(cancellation))];

    /// <inheritdoc cref="LlavaTrainingData.ContentOf(int)"/>
    public string ContentOf(int index)
    {
        var (dataset, place) = Mixture.Find(index);
        return LlavaTrainingData.ContentOf(dataset, place);
    }

    /// <inheritdoc/>
    public LlavaBatch Batch(IReadOnlyList<int> indices)
    {
        ArgumentNullException.ThrowIfNull(indices);
        // What holds for a batch as a whole is the same in all sources.
        return _sources[0].Collate(indices.Select(i =>
        {
            var (dataset, place) = Mixture.Find(i);
            return _limited[dataset].Encode(place);
        }));
    }
}
