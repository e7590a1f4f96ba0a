using Peft.Core;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>
/// Turns samples into ids, labels and pixels: images are decoded and processed, placeholders put in place, the conversation written,
/// tokenised and labelled. Threads may share one.
/// </summary>
/// <remarks>Source: LLaVA <c>LazySupervisedDataset.__getitem__</c>.</remarks>
public sealed class SampleEncoder
{
    private readonly LabelBuilder _labels;
    private readonly string _imageFolder;

    /// <summary>Creates an encoder.</summary>
    /// <param name="processor">Tokenizer, images and template.</param>
    /// <param name="imageFolder">The folder to which the samples' image files are relative; null for the current one.</param>
    /// <param name="options">The choices; null for the defaults.</param>
    public SampleEncoder(LlavaProcessor processor, string? imageFolder = null, DataOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(processor);
        Processor = processor;
        Options = options ?? new DataOptions();
        _imageFolder = imageFolder ?? "";
        _labels = new LabelBuilder(processor.Tokenizer, processor.Template, Options.Labels);
    }

    /// <summary>Tokenizer, images and template.</summary>
    public LlavaProcessor Processor { get; }

    /// <summary>The choices.</summary>
    public DataOptions Options { get; }

    internal bool UsesImageStartEnd => Options.UseImageStartEnd ?? Processor.UsesImageStartEnd;

    /// <summary>The same with other choices.</summary>
    /// <param name="options">The choices.</param>
    public SampleEncoder With(DataOptions options) => new(Processor, _imageFolder, options);

    /// <summary>The same with another limit of the text.</summary>
    internal SampleEncoder WithMaxLength(int length) => new(Processor.WithTokenizer(Processor.Tokenizer.WithModelMaxLength(length)), _imageFolder, Options);

    /// <summary>Encodes a sample.</summary>
    /// <param name="sample">The sample.</param>
    /// <returns>The encoded sample; the caller disposes it.</returns>
    /// <exception cref="SampleException">It cannot be trained on: the exception says why and names the file, if one is at fault.</exception>
    public EncodedSample Encode(LlavaSample sample)
    {
        ArgumentNullException.ThrowIfNull(sample);
        var text = EncodeText(sample);
        var images = EncodeImages(sample).ToList();
        if (images.Count == 0 && Options.ZeroImageForTextOnly) images.Add(ZeroImage());
        return new EncodedSample(sample, text, images);
    }

    /// <summary>Decodes and processes a sample's images alone.</summary>
    /// <param name="sample">The sample.</param>
    /// <returns>The images in their order; the caller disposes their pixels.</returns>
    /// <exception cref="SampleException">One of them cannot be used.</exception>
    public IReadOnlyList<ImageTiles> EncodeImages(LlavaSample sample)
    {
        ArgumentNullException.ThrowIfNull(sample);
        var images = new List<ImageTiles>(sample.Images.Count);
        try
        {
            foreach (string file in sample.Images) images.Add(Process(sample, file));
            return images;
        }
        catch
        {
            foreach (var image in images) image.Pixels.Dispose();
            throw;
        }
    }

    /// <summary>Processes an image that was read, and forgets the result: processing fails for shapes that are too extreme.</summary>
    /// <exception cref="SampleException">It cannot be used.</exception>
    internal void CheckShape(LlavaSample sample, string file) => With(Options with { BadImages = BadImagePolicy.Fail }).Process(sample, file).Pixels.Dispose();

    /// <summary>Size and tiles of each image; a size that plays no part is given as 1 x 1, without decoding.</summary>
    internal IReadOnlyList<(ImageSize Size, int Tiles)> ImageSizes(LlavaSample sample)
    {
        if (Processor.Images is null or ClipImageProcessor { Aspect: not AspectPolicy.AnyResolution })
            return [.. sample.Images.Select(_ => (new ImageSize(1, 1), 1))];
        return [.. sample.Images.Select(file =>
        {
            var size = Picture(sample, file, Processor.Images).Size;
            return (size, Processor.Images.TileCount(size));
        })];
    }

    /// <summary>Encodes a sample's conversation alone.</summary>
    /// <param name="sample">The sample.</param>
    /// <exception cref="SampleException">The conversation cannot be trained on.</exception>
    public LabeledText EncodeText(LlavaSample sample)
    {
        ArgumentNullException.ThrowIfNull(sample);
        CheckPlaceholders(sample);
        var turns = sample.HasImage
            ? MultimodalText.Prepare(sample.Turns, Processor.Template, UsesImageStartEnd, keepPlaces: sample.Images.Count > 1)
            : sample.Turns;
        LabeledText text;
        try
        {
            text = _labels.Build(turns, sample.HasImage);
        }
        catch (PeftException e) when (e is ConversationException or InvalidTextException)
        {
            throw new SampleException(SampleProblem.Conversation, sample, e.Message, "Correct or remove the sample.", innerException: e);
        }
        if (text.SupervisedCount == 0 && Options.Unsupervised == UnsupervisedPolicy.Fail) throw NothingSupervised(sample, text);
        return text;
    }

    /// <summary>The path of an image that a sample names.</summary>
    public string PathOf(string file) => Path.Combine(_imageFolder, file);

    /// <summary>Decodes an image of a sample.</summary>
    /// <param name="sample">The sample.</param>
    /// <param name="file">The file, as the sample names it.</param>
    /// <exception cref="SampleException">It is missing or cannot be decoded.</exception>
    public RgbImage ReadImage(LlavaSample sample, string file)
    {
        ArgumentNullException.ThrowIfNull(sample);
        string path = PathOf(file);
        try
        {
            return Processor.ReadImage(path);
        }
        catch (Exception e) when (e is PeftException or IOException or UnauthorizedAccessException)
        {
            if (File.Exists(path))
            {
                throw new SampleException(SampleProblem.BadImage, sample, $"its image '{path}' cannot be used: {e.Message}",
                    "Replace the file, or remove the sample.", path, e);
            }
            throw new SampleException(SampleProblem.MissingImage, sample, $"its image '{path}' is not there.",
                "Check the image folder, or remove the sample.", path, e);
        }
    }

    private void CheckPlaceholders(LlavaSample sample)
    {
        if (!Options.CheckPlaceholders) return;
        if (RecordCheck.PlaceholderProblem(sample) is { } problem)
            throw new SampleException(SampleProblem.PlaceholderCount, sample, problem + ".",
                "Write one placeholder per image, or correct the record's image field.");
    }

    private SampleException NothingSupervised(LlavaSample sample, LabeledText text)
    {
        string counts = text.Mismatch is { } m ? $"LLaVA counts {m.Counted} tokens where there are {m.Total}"
            : text.Prompt.Supervised.Count == 0 ? "no turn of 'gpt' holds text"
            : $"its {text.Ids.Count} tokens end before the first answer (model_max_length {Processor.Tokenizer.ModelMaxLength})";
        return new SampleException(SampleProblem.NothingSupervised, sample,
            $"none of its {text.Ids.Count} tokens is supervised with the template '{Processor.Template.Name}': {counts}.",
            "Correct or remove it, choose the model's template, or keep such samples (DataOptions.Unsupervised).");
    }

    private ImageTiles Process(LlavaSample sample, string file)
    {
        var images = Processor.Images ?? throw new SampleException(SampleProblem.BadImage, sample,
            $"names the image '{file}', but the processor has no image side.", "Give the LlavaProcessor an IImageProcessor.", file);
        var picture = Picture(sample, file, images);
        try
        {
            return new ImageTiles(images.ToTensor(picture).DetachFromDisposeScope(), picture.Size);
        }
        catch (ImageShapeException) when (Options.BadImages == BadImagePolicy.Blank)
        {
            picture = new RgbImage(images.TileSize, images.TileSize);
            return new ImageTiles(images.ToTensor(picture).DetachFromDisposeScope(), picture.Size);
        }
        catch (ImageShapeException e)
        {
            string path = PathOf(file);
            throw new SampleException(SampleProblem.BadImage, sample, $"its image '{path}' cannot be used: {e.Message}", "Replace the file, or remove the sample.", path, e);
        }
    }

    private RgbImage Picture(LlavaSample sample, string file, IImageProcessor images)
    {
        try
        {
            return ReadImage(sample, file);
        }
        catch (SampleException) when (Options.BadImages == BadImagePolicy.Blank)
        {
            return new RgbImage(images.TileSize, images.TileSize);
        }
    }

    private ImageTiles ZeroImage()
    {
        int side = Processor.Images?.TileSize ?? throw new ArgumentException("A zero picture needs a LlavaProcessor with an IImageProcessor.");
        return new ImageTiles(zeros([1, 3, side, side]).DetachFromDisposeScope(), new ImageSize(side, side));
    }
}
