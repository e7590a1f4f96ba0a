using System.Collections.Concurrent;

namespace Peft.Llava;

/// <summary>Examines the samples of a data set, several at a time.</summary>
internal sealed class PreflightExaminer
{
    private readonly LlavaDataset _dataset;
    private readonly PreflightOptions _options;
    private readonly SampleEncoder _texts;
    private readonly PreflightImages _images;
    private readonly int _limit;

    public PreflightExaminer(LlavaDataset dataset, PreflightOptions options)
    {
        _dataset = dataset;
        _options = options;
        _texts = StrictEncoder(dataset.Encoder);
        _images = new PreflightImages(dataset.Encoder, options);
        _limit = options.MaxLength ?? dataset.Encoder.Processor.Tokenizer.ModelMaxLength ?? int.MaxValue;
    }

    public PreflightReport Run(IProgress<PreflightProgress>? progress, CancellationToken cancellation)
    {
        var findings = new ConcurrentBag<PreflightFinding>();
        var lengths = new int[_dataset.Count];
        var supervised = new int[_dataset.Count];
        int done = 0;
        var work = new ParallelOptions { MaxDegreeOfParallelism = _options.Workers, CancellationToken = cancellation };
        Parallel.For(0, _dataset.Count, work, place =>
        {
            var found = new List<PreflightFinding>();
            (lengths[place], supervised[place]) = Examine(place, found);
            if (found.Exists(f => f.Severity == PreflightSeverity.Error)) lengths[place] = supervised[place] = 0;
            found.ForEach(findings.Add);
            progress?.Report(new PreflightProgress(Interlocked.Increment(ref done), _dataset.Count, findings.Count));
        });
        return new PreflightReport(_dataset.Count, [.. findings.OrderBy(f => f.Place).ThenBy(f => f.Category).ThenBy(f => f.File, StringComparer.Ordinal)],
            lengths.Sum(l => (long)l), supervised.Sum(s => (long)s), lengths.Append(0).Max());
    }

    private (int Length, int Supervised) Examine(int place, List<PreflightFinding> found)
    {
        var sample = _dataset.Samples[place];
        int[] features = [.. sample.Images.Select(file => _images.Examine(place, sample, file, found))];
        LabeledText text;
        try
        {
            text = _texts.EncodeText(sample);
        }
        catch (SampleException e)
        {
            found.Add(new PreflightFinding(place, sample.Id, CategoryOf(e.Problem), e.Message, e.File));
            return default;
        }
        var (length, supervised) = Measure(text, features);
        if (supervised == 0)
            Add(PreflightCategory.NothingSupervised, SampleProblem.NothingSupervised, $"has {length} tokens, and none of the first {_limit} is supervised.");
        else if (length > _limit)
            Add(PreflightCategory.TooLong, SampleProblem.TooLong, $"has {length} tokens, above the limit of {_limit}; its end will be cut off.");
        return (length, supervised);

        void Add(PreflightCategory category, SampleProblem problem, string reason)
        {
            var e = new SampleException(problem, sample, reason, "Shorten it, or raise model_max_length.");
            found.Add(new PreflightFinding(place, sample.Id, category, e.Message, null));
        }
    }

    /// <summary>Strict whatever the data set's own options let pass, and without a limit, so that true lengths are seen.</summary>
    private static SampleEncoder StrictEncoder(SampleEncoder encoder)
        => new(encoder.Processor.WithTokenizer(encoder.Processor.Tokenizer.WithModelMaxLength(null)), null,
            encoder.Options with { Labels = LabelMode.Spans, Unsupervised = UnsupervisedPolicy.Fail, CheckPlaceholders = true });

    /// <summary>The length with every image as its features, and the labels before the limit.</summary>
    private (int Length, int Supervised) Measure(LabeledText text, int[] features)
    {
        int length = 0, supervised = 0, image = 0;
        for (int i = 0; i < text.Ids.Count; i++)
        {
            if (text.Labels[i] >= 0 && length < _limit) supervised++;
            length += text.Ids[i] == LlamaTokenizer.ImageTokenId ? features[image++] : 1;
        }
        return (length, supervised);
    }

    private static PreflightCategory CategoryOf(SampleProblem problem) => problem switch
    {
        SampleProblem.PlaceholderCount => PreflightCategory.PlaceholderCount,
        SampleProblem.NothingSupervised => PreflightCategory.NothingSupervised,
        _ => PreflightCategory.Conversation,
    };
}
