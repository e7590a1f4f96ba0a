using System.Collections.Concurrent;

namespace Peft.Llava;

/// <summary>What <see cref="Preflight"/> looks at.</summary>
public sealed record PreflightOptions
{
    /// <summary>Threads.</summary>
    public int Workers { get; init; } = Environment.ProcessorCount;

    /// <summary>Whether images are decoded, which finds damaged ones, or only looked for.</summary>
    public bool DecodeImages { get; init; } = true;

    /// <summary>Features that one tile of an image becomes (576 for LLaVA 1.5), for lengths; 0 to count an image as one.</summary>
    public int FeaturesPerTile { get; init; }

    /// <summary>The longest sample, images included; null for the tokenizer's limit.</summary>
    public int? MaxLength { get; init; }
}

/// <summary>What is wrong with one sample.</summary>
/// <param name="Place">Its place in the data set.</param>
/// <param name="SampleId">Its id.</param>
/// <param name="Problem">The kind of fault.</param>
/// <param name="Message">The fault in words, with the next step.</param>
/// <param name="File">The file at fault, or null.</param>
public sealed record PreflightFinding(int Place, string SampleId, SampleProblem Problem, string Message, string? File);

/// <summary>What a data set is like.</summary>
/// <param name="SampleCount">Number of samples.</param>
/// <param name="Findings">All faults, in the data set's order.</param>
/// <param name="Tokens">Ids of all samples, an image counting as many as it becomes.</param>
/// <param name="SupervisedTokens">Positions with a label.</param>
/// <param name="LongestSample">Ids of the longest sample.</param>
public sealed record PreflightReport(
    int SampleCount, IReadOnlyList<PreflightFinding> Findings, long Tokens, long SupervisedTokens, int LongestSample)
{
    /// <summary>True if nothing was found.</summary>
    public bool IsClean => Findings.Count == 0;

    /// <summary>The places of the samples that can be trained on (too long ones are cut), for <see cref="LlavaDataset.Select"/>.</summary>
    public IReadOnlyList<int> UsablePlaces { get; }
        = [.. Enumerable.Range(0, SampleCount).Except(Findings.Where(f => f.Problem != SampleProblem.TooLong).Select(f => f.Place))];

    /// <summary>A summary: totals, faults by kind, and the first of each kind.</summary>
    public override string ToString()
    {
        var kinds = Findings.GroupBy(f => f.Problem).Select(g => $"\n  {g.Key}: {g.Count()}, the first: {g.First().Message}");
        return $"{SampleCount} samples, {Tokens} tokens, {SupervisedTokens} supervised, longest {LongestSample}, {Findings.Count} fault(s)"
            + string.Concat(kinds);
    }
}

/// <summary>Looks at every sample before a run starts: images, placeholders, labels, lengths.</summary>
public static class Preflight
{
    /// <summary>Examines a data set, by several threads.</summary>
    /// <param name="dataset">The data set.</param>
    /// <param name="options">What to look at; null for the defaults.</param>
    /// <param name="cancellation">Stops the work.</param>
    public static PreflightReport Examine(this LlavaDataset dataset, PreflightOptions? options = null, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(dataset);
        options ??= new PreflightOptions();
        var findings = new ConcurrentBag<PreflightFinding>();
        var lengths = new int[dataset.Count];
        var supervised = new int[dataset.Count];
        var encoder = StrictEncoder(dataset.Encoder);
        int limit = options.MaxLength ?? dataset.Encoder.Processor.Tokenizer.ModelMaxLength ?? int.MaxValue;
        var work = new ParallelOptions { MaxDegreeOfParallelism = options.Workers, CancellationToken = cancellation };
        Parallel.For(0, dataset.Count, work, i =>
        {
            var sample = dataset.Samples[i];
            try
            {
                var text = encoder.EncodeText(sample);
                int[] features = [.. sample.Images.Select(file => Features(dataset.Encoder, sample, file, options))];
                (lengths[i], supervised[i]) = Measure(text, features, limit);
                if (supervised[i] == 0) throw CutOff(sample, lengths[i], limit);
                if (lengths[i] > limit) throw TooLong(sample, lengths[i], limit);
            }
            catch (SampleException e)
            {
                findings.Add(new PreflightFinding(i, sample.Id, e.Problem, e.Message, e.File));
            }
        });
        return new PreflightReport(dataset.Count, [.. findings.OrderBy(f => f.Place)], lengths.Sum(l => (long)l), supervised.Sum(s => (long)s),
            lengths.Append(0).Max());
    }

    /// <summary>Strict whatever the data set's own options let pass, and without a limit, so that true lengths are seen.</summary>
    private static SampleEncoder StrictEncoder(SampleEncoder encoder)
        => new(encoder.Processor.WithTokenizer(encoder.Processor.Tokenizer.WithModelMaxLength(null)), null,
            encoder.Options with { Labels = LabelMode.Spans, Unsupervised = UnsupervisedPolicy.Fail, CheckPlaceholders = true });

    /// <summary>The length with every image as its features, and the labels before the limit.</summary>
    private static (int Length, int Supervised) Measure(LabeledText text, int[] features, int limit)
    {
        int length = 0, supervised = 0, image = 0;
        for (int i = 0; i < text.Ids.Count; i++)
        {
            if (text.Labels[i] >= 0 && length < limit) supervised++;
            length += text.Ids[i] == LlamaTokenizer.ImageTokenId ? features[image++] : 1;
        }
        return (length, supervised);
    }

    private static int Features(SampleEncoder encoder, LlavaSample sample, string file, PreflightOptions options)
    {
        int perTile = Math.Max(1, options.FeaturesPerTile);
        if (options.DecodeImages)
        {
            var picture = encoder.ReadImage(sample, file);
            return perTile * (encoder.Processor.Images?.TileCount(picture.Size) ?? 1);
        }
        string path = encoder.PathOf(file);
        if (File.Exists(path)) return perTile;
        throw new SampleException(SampleProblem.MissingImage, sample, $"its image '{path}' is not there.",
            "Check the image folder, or remove the sample.", path);
    }

    private static SampleException CutOff(LlavaSample sample, int length, int limit)
        => new(SampleProblem.NothingSupervised, sample, $"has {length} tokens, and none of the first {limit} is supervised.",
            "Shorten it, or raise model_max_length.");

    private static SampleException TooLong(LlavaSample sample, int length, int limit)
        => new(SampleProblem.TooLong, sample, $"has {length} tokens, above the limit of {limit}; its end would be cut off.",
            "Shorten it, or raise model_max_length.");
}
