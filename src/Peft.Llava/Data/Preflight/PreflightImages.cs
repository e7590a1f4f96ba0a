namespace Peft.Llava;

/// <summary>Examines one image of a sample.</summary>
internal sealed class PreflightImages(SampleEncoder encoder, PreflightOptions options)
{
    /// <summary>
    /// Below both of these no step of the processing needs a picture that an array cannot hold: a square of the long side has 805 MB, and the short
    /// side would have to be resized to more than 3000 pixels.
    /// </summary>
    private const int OrdinarySide = 16384, OrdinaryRatio = 64;

    private int PerTile => Math.Max(1, options.FeaturesPerTile);

    /// <summary>Adds what is found, and gives the features that the image becomes (of one tile where it cannot be had).</summary>
    public int Examine(int place, LlavaSample sample, string file, List<PreflightFinding> found)
    {
        string path = encoder.PathOf(file);
        if (!options.DecodeImages)
        {
            if (!File.Exists(path)) Add(PreflightCategory.MissingImage, Missing(sample, path).Message);
            return PerTile;
        }
        int tiles = 1;
        try
        {
            var picture = encoder.ReadImage(sample, file);
            var size = picture.Size;
            int longSide = Math.Max(size.Width, size.Height), shortSide = Math.Min(size.Width, size.Height);
            if ((longSide > OrdinarySide || longSide / shortSide >= OrdinaryRatio) && encoder.Processor.Images is not null) encoder.CheckShape(sample, file);
            tiles = encoder.Processor.Images?.TileCount(size) ?? 1;
            // A reader of the processor's own says nothing of the header, and may make its pictures from something other than files.
            if (picture.Traits is { } traits) Warn(traits);
            else if (File.Exists(path)) Warn(ImageTraits.Read(File.ReadAllBytes(path)));
        }
        catch (SampleException e)
        {
            Add(CategoryOf(e), e.Message);
        }
        return PerTile * tiles;

        void Warn(ImageTraits traits)
        {
            if (traits.IsCmyk)
                Add(PreflightCategory.CmykImage, Text("has CMYK colours, which become RGB without a colour profile, as in Pillow. Convert it to RGB if its colours matter."));
            if (traits.BitsPerSample == 16)
                Add(PreflightCategory.SixteenBitImage,
                    Text("has 16 bits per sample, of which 8 remain as in Pillow: grey above 255 turns white. Convert it to 8 bits if it is grey."));
            if (traits.Orientation != 1)
                Add(PreflightCategory.RotatedImage, Text($"has EXIF orientation {traits.Orientation}, which is not applied, as in LLaVA. "
                    + "Turn the picture itself if the model should see it upright."));
        }

        string Text(string finding) => $"Sample '{sample.Id}' (record {sample.Index}): its image '{path}' {finding}";

        void Add(PreflightCategory category, string message) => found.Add(new PreflightFinding(place, sample.Id, category, message, path));
    }

    private static SampleException Missing(LlavaSample sample, string path)
        => new(SampleProblem.MissingImage, sample, $"its image '{path}' is not there.", "Check the image folder, or remove the sample.", path);

    private static PreflightCategory CategoryOf(SampleException e)
    {
        if (e.Problem == SampleProblem.MissingImage) return PreflightCategory.MissingImage;
        if (e.InnerException is ImageShapeException) return PreflightCategory.ExtremeShape;
        return (e.InnerException as ImageDecodeException)?.Fault switch
        {
            ImageFault.Missing => PreflightCategory.MissingImage,
            ImageFault.Empty or ImageFault.NoPixels => PreflightCategory.ZeroSizeImage,
            ImageFault.NotAnImage => PreflightCategory.NotAnImage,
            ImageFault.Unsupported => PreflightCategory.UnsupportedImage,
            ImageFault.Truncated => PreflightCategory.TruncatedImage,
            ImageFault.Corrupt => PreflightCategory.CorruptImage,
            ImageFault.TooLarge => PreflightCategory.DecompressionBomb,
            ImageFault.DecoderMissing => PreflightCategory.DecoderMissing,
            _ => PreflightCategory.UnreadableImage,
        };
    }
}
