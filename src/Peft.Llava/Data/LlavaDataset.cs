namespace Peft.Llava;

/// <summary>LLaVA's training data: conversations with images, encoded sample by sample when asked.</summary>
public sealed class LlavaDataset
{
    private const int ImageWords = 128;
    private readonly Lazy<(int[] Lengths, int[] ModalityLengths)> _lengths;

    /// <summary>Creates a data set of samples in memory.</summary>
    /// <param name="samples">The samples.</param>
    /// <param name="encoder">How they are encoded.</param>
    public LlavaDataset(IReadOnlyList<LlavaSample> samples, SampleEncoder encoder)
    {
        ArgumentNullException.ThrowIfNull(samples);
        ArgumentNullException.ThrowIfNull(encoder);
        Samples = samples;
        Encoder = encoder;
        _lengths = new(() => MeasureLengths(samples));
    }

    /// <summary>Reads a data file: an array of records with <c>id</c>, <c>image</c> (a file, a list of files, or absent) and <c>conversations</c>.</summary>
    /// <param name="path">The file.</param>
    /// <param name="imageFolder">The folder to which image files are relative; null for the current one.</param>
    /// <param name="processor">Tokenizer, images and template.</param>
    /// <param name="options">The choices; null for the defaults.</param>
    /// <exception cref="DataFileException">The file cannot be read, or records are malformed (all of them are named).</exception>
    public static LlavaDataset FromJson(string path, string? imageFolder, LlavaProcessor processor, DataOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(path);
        options ??= new DataOptions();
        return new LlavaDataset(DataFileReader.ReadJson(path, options.RecordChecksInForce), new SampleEncoder(processor, imageFolder, options));
    }

    /// <summary>Reads a JSON Lines file: one record of the same form per line, in UTF-8; empty lines are passed over.</summary>
    /// <inheritdoc cref="FromJson"/>
    public static LlavaDataset FromJsonLines(string path, string? imageFolder, LlavaProcessor processor, DataOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(path);
        options ??= new DataOptions();
        return new LlavaDataset(DataFileReader.ReadJsonLines(path, options.RecordChecksInForce), new SampleEncoder(processor, imageFolder, options));
    }

    /// <summary>
    /// Reads a split of ScienceQA: <c>problems.json</c> and <c>pid_splits.json</c>, with the texts of LLaVA's own conversion. A problem's image is
    /// <c>id/image</c> in the image folder.
    /// </summary>
    /// <param name="folder">The folder with the two files.</param>
    /// <param name="split">A split of <c>pid_splits.json</c>, such as <c>train</c>.</param>
    /// <param name="format">What question and answer hold; LLaVA's scripts train with <c>QCM-LEA</c>.</param>
    /// <param name="imageFolder">The folder to which image files are relative; null for the current one.</param>
    /// <param name="processor">Tokenizer, images and template.</param>
    /// <param name="options">The choices; null for the defaults.</param>
    /// <exception cref="DataFileException">A file cannot be read, or problems are malformed (all of them are named).</exception>
    /// <remarks>Source: LLaVA <c>scripts/convert_sqa_to_llava.py</c>.</remarks>
    public static LlavaDataset FromScienceQa(
        string folder, string split, ScienceQaFormat format, string? imageFolder, LlavaProcessor processor, DataOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(folder);
        ArgumentNullException.ThrowIfNull(split);
        ArgumentNullException.ThrowIfNull(format);
        options ??= new DataOptions();
        return new LlavaDataset(ScienceQaReader.Read(folder, split, format, options.RecordChecksInForce), new SampleEncoder(processor, imageFolder, options));
    }

    /// <summary>The samples, in the file's order.</summary>
    public IReadOnlyList<LlavaSample> Samples { get; }

    /// <summary>How they are encoded.</summary>
    public SampleEncoder Encoder { get; }

    /// <summary>Number of samples.</summary>
    public int Count => Samples.Count;

    /// <summary>Each sample's length in words, with 128 for its image: what LLaVA orders by.</summary>
    public IReadOnlyList<int> Lengths => _lengths.Value.Lengths;

    /// <summary>Each sample's length in words, negative without an image: what <c>group_by_modality_length</c> orders by.</summary>
    public IReadOnlyList<int> ModalityLengths => _lengths.Value.ModalityLengths;

    /// <summary>Encodes a sample.</summary>
    /// <param name="index">Its place in <see cref="Samples"/>.</param>
    /// <returns>The encoded sample; the caller disposes it.</returns>
    /// <exception cref="SampleException">It cannot be trained on.</exception>
    public EncodedSample Encode(int index) => Encoder.Encode(Samples[index]);

    /// <summary>The data set with the samples of these places only.</summary>
    /// <param name="indices">Places in <see cref="Samples"/>.</param>
    public LlavaDataset Select(IEnumerable<int> indices) => new([.. indices.Select(i => Samples[i])], Encoder);

    /// <summary>Looks at every sample before a run, by several threads: images, placeholders, labels, lengths. Nothing is changed.</summary>
    /// <param name="options">What to look at; null for the defaults.</param>
    /// <param name="progress">Told after each sample, by the thread that examined it.</param>
    /// <param name="cancellation">Stops the work.</param>
    /// <exception cref="OperationCanceledException">The token was cancelled.</exception>
    public PreflightReport Preflight(
        PreflightOptions? options = null, IProgress<PreflightProgress>? progress = null, CancellationToken cancellation = default)
        => new PreflightExaminer(this, options ?? new PreflightOptions()).Run(progress, cancellation);

    /// <summary>The data set as it can be trained on after a preflight.</summary>
    /// <param name="report">The report of this data set.</param>
    /// <param name="policy">What happens with samples that have errors.</param>
    /// <returns>This data set where nothing has to change; otherwise another one.</returns>
    /// <exception cref="PreflightException">
    /// There are errors and the policy is <see cref="PreflightPolicy.Fail"/>; or they are not of images and it is <see cref="PreflightPolicy.Blank"/>; or
    /// nothing would be left.
    /// </exception>
    public LlavaDataset Apply(PreflightReport report, PreflightPolicy policy)
    {
        ArgumentNullException.ThrowIfNull(report);
        if (report.SampleCount != Count)
            throw new ArgumentException($"The report is of {report.SampleCount} samples, the data set has {Count}; examine this data set.", nameof(report));
        var errors = report.Errors.ToList();
        if (errors.Count == 0) return this;
        switch (policy)
        {
            case PreflightPolicy.Skip when report.UsablePlaces.Count > 0:
                return Select(report.UsablePlaces);
            case PreflightPolicy.Skip:
                throw new PreflightException(Count, errors, "Nothing would be left: check the image folder, the template and the length limit.");
            case PreflightPolicy.Blank when errors.Find(e => !e.Category.IsImageFault()) is null:
                return new LlavaDataset(Samples, Encoder.With(Encoder.Options with { BadImages = BadImagePolicy.Blank }));
            case PreflightPolicy.Blank:
                throw new PreflightException(Count, [.. errors.Where(e => !e.Category.IsImageFault())],
                    "A blank picture mends images alone: correct these, or leave them out with PreflightPolicy.Skip.");
            default:
                throw new PreflightException(Count, errors, "Correct them, leave them out with PreflightPolicy.Skip, or take blank pictures with PreflightPolicy.Blank.");
        }
    }

    private static (int[] Lengths, int[] ModalityLengths) MeasureLengths(IReadOnlyList<LlavaSample> samples)
    {
        var lengths = new int[samples.Count];
        var modality = new int[samples.Count];
        for (int i = 0; i < samples.Count; i++)
        {
            int words = samples[i].WordCount;
            lengths[i] = words + (samples[i].HasImage ? ImageWords : 0);
            modality[i] = samples[i].HasImage ? words : -words;
        }
        return (lengths, modality);
    }
}
