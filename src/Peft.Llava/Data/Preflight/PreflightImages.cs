namespace Peft.Llava;

/// <summary>Examines one image of a sample.</summary>
internal sealed class PreflightImages(SampleEncoder encoder, PreflightOptions options)
{
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
            tiles = encoder.Processor.Images?.TileCount(encoder.ReadImage(sample, file).Size) ?? 1;
            // A processor may make its pictures from something other than files.
            if (File.Exists(path)) Warn(ImageTraits.Read(File.ReadAllBytes(path)));
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
