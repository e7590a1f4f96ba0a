namespace Peft.Llava;

/// <summary>A <see cref="LlavaDataset"/> as a trainer reads it: encoded, merged and cut for one model.</summary>
public sealed class LlavaTrainingData : ITrainingData
{
    private readonly LlavaCollator _collator;

    /// <summary>Creates it.</summary>
    /// <param name="dataset">The samples.</param>
    /// <param name="config">The model's configuration, with the tower's sizes.</param>
    /// <param name="maxLength">The longest merged sequence; null for the configuration's.</param>
    public LlavaTrainingData(LlavaDataset dataset, LlavaConfig config, int? maxLength = null)
    {
        ArgumentNullException.ThrowIfNull(dataset);
        Dataset = dataset;
        var options = dataset.Encoder.Options;
        var builder = new LlavaBatchBuilder(config, new LlavaBatchOptions { MaxLength = maxLength, TextOnlySamplesOwnAnImage = options.ZeroImageForTextOnly });
        _collator = new LlavaCollator(dataset.Encoder.Processor.Tokenizer, options, builder);
    }

    /// <summary>The samples.</summary>
    public LlavaDataset Dataset { get; }

    /// <inheritdoc/>
    public int Count => Dataset.Count;

    /// <inheritdoc/>
    public IReadOnlyList<int> ModalityLengths => Dataset.ModalityLengths;

    /// <inheritdoc/>
    public LlavaBatch Batch(IReadOnlyList<int> indices)
    {
        ArgumentNullException.ThrowIfNull(indices);
        var samples = new List<EncodedSample>(indices.Count);
        try
        {
            foreach (int index in indices) samples.Add(Dataset.Encode(index));
            return _collator.Collate(samples);
        }
        finally
        {
            samples.ForEach(s => s.Dispose());
        }
    }
}
