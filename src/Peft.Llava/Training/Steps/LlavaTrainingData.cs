namespace Peft.Llava;

/// <summary>A <see cref="LlavaDataset"/> as a trainer reads it: encoded, merged and cut for one model.</summary>
public sealed class LlavaTrainingData : ITrainingData
{
    private readonly LlavaCollator _collator;

    /// <summary>Creates it.</summary>
    /// <param name="dataset">The samples.</param>
    /// <param name="config">The model's configuration, with the tower's sizes.</param>
    /// <param name="maxLength">The longest merged sequence, as in <see cref="TrainingOptions.MaxLength"/>; null for what the model was made for.</param>
    /// <remarks>The limit holds after pictures are expanded, in place of the tokenizer's own.</remarks>
    public LlavaTrainingData(LlavaDataset dataset, LlavaConfig config, int? maxLength = null)
    {
        ArgumentNullException.ThrowIfNull(dataset);
        ArgumentNullException.ThrowIfNull(config);
        var tokenizer = dataset.Encoder.Processor.Tokenizer;
        MaxLength = LengthLimit.Of(maxLength, config, tokenizer);
        Dataset = tokenizer.ModelMaxLength == MaxLength ? dataset : new LlavaDataset(dataset.Samples, dataset.Encoder.WithMaxLength(MaxLength));
        var options = dataset.Encoder.Options;
        var builder = new LlavaBatchBuilder(config, new LlavaBatchOptions { MaxLength = MaxLength, TextOnlySamplesOwnAnImage = options.ZeroImageForTextOnly });
        _collator = new LlavaCollator(Tokenizer, options, builder);
    }

    /// <summary>The samples, with a tokenizer of <see cref="MaxLength"/>.</summary>
    public LlavaDataset Dataset { get; }

    /// <summary>The longest merged sequence.</summary>
    public int MaxLength { get; }

    int? ITrainingData.MaxLength => MaxLength;

    /// <inheritdoc/>
    public int Count => Dataset.Count;

    /// <inheritdoc/>
    public IReadOnlyList<int> ModalityLengths => Dataset.ModalityLengths;

    /// <inheritdoc/>
    public LlamaTokenizer Tokenizer => Dataset.Encoder.Processor.Tokenizer;

    /// <summary>Id, conversation, and the names and sizes of the image files; their pixels are not read.</summary>
    /// <param name="index">The sample's number.</param>
    public string ContentOf(int index) => ContentOf(Dataset, index);

    internal static string ContentOf(LlavaDataset dataset, int index)
    {
        var sample = dataset.Samples[index];
        // The unit separator stands in no id, role or file name.
        return string.Join('\x1f', sample.Turns.SelectMany(t => new[] { t.From, t.Value }).Prepend(sample.Id)
            .Concat(sample.Images.SelectMany(i => new[] { i, SizeOf(dataset.Encoder.PathOf(i)) })));
    }

    /// <inheritdoc/>
    /// <remarks>Every conversation is encoded, by several threads; pictures are decoded only where their number of tiles depends on their size.</remarks>
    /// <exception cref="SampleException">A sample cannot be trained on.</exception>
    public IReadOnlyList<int> CountTokens(CancellationToken cancellation = default)
    {
        var tokens = new int[Count];
        try
        {
            Parallel.For(0, Count, new ParallelOptions { CancellationToken = cancellation }, i =>
            {
                var sample = Dataset.Samples[i];
                tokens[i] = _collator.CountTokens(Dataset.Encoder.EncodeText(sample), Dataset.Encoder.ImageSizes(sample));
            });
        }
        catch (AggregateException e) when (e.InnerExceptions.OfType<SampleException>().OrderBy(s => s.Index).FirstOrDefault() is { } first)
        {
            System.Runtime.ExceptionServices.ExceptionDispatchInfo.Throw(first);
        }
        return tokens;
    }

    /// <inheritdoc/>
    public LlavaBatch Batch(IReadOnlyList<int> indices)
    {
        ArgumentNullException.ThrowIfNull(indices);
        return Collate(indices.Select(Dataset.Encode));
    }

    /// <summary>Puts samples together as they are made, and disposes them.</summary>
    internal LlavaBatch Collate(IEnumerable<EncodedSample> made)
    {
        var samples = new List<EncodedSample>();
        try
        {
            foreach (var sample in made) samples.Add(sample);
            return _collator.Collate(samples);
        }
        finally
        {
            samples.ForEach(s => s.Dispose());
        }
    }

    private static string SizeOf(string path)
    {
        var file = new FileInfo(path);
        return file.Exists ? file.Length.ToString(System.Globalization.CultureInfo.InvariantCulture) : "";
    }
}
