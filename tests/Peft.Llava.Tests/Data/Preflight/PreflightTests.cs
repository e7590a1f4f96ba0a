using Peft.Testing;
using Xunit;

namespace Peft.Llava.Tests.Data;

public sealed class PreflightTests : IDisposable
{
    private readonly TinyData _data = new();

    public void Dispose() => _data.Dispose();

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    /// <summary>A JPEG that Pillow wrote.</summary>
    private static byte[] Jpeg()
    {
        var golden = Goldens.Cases("images").First(c => c.Name == "decode-jpeg-444");
        return File.ReadAllBytes(golden.PathOf(golden.Json.GetProperty("picture").GetString()!));
    }

    public static TheoryData<PreflightCategory, byte[], string> Fixtures()
    {
        byte[] jpeg = Jpeg(), png = PictureBytes.Png();
        byte[] corrupt = [.. jpeg];
        corrupt[jpeg.AsSpan().IndexOf((ReadOnlySpan<byte>)[0xff, 0xc0]) + 3] = 1;
        return new()
        {
            { PreflightCategory.ZeroSizeImage, [], "The file is empty." },
            { PreflightCategory.ZeroSizeImage, PictureBytes.Png(8, 0, 3), "Its header claims 0x3 pixels." },
            { PreflightCategory.TruncatedImage, jpeg[..^400], "The file ends without its end marker." },
            { PreflightCategory.TruncatedImage, png[..40], "The file ends before its picture data." },
            { PreflightCategory.CorruptImage, corrupt, "claims 1 bytes." },
            { PreflightCategory.NotAnImage, "no picture"u8.ToArray(), "The content is no picture; it begins with 'no picture'." },
            { PreflightCategory.UnsupportedImage, "<svg width='3'/>"u8.ToArray(), "The content is an SVG drawing, which is not decoded. Convert it to PNG or JPEG." },
            { PreflightCategory.DecompressionBomb, PictureBytes.Png(8, 60000, 60000), "Its header claims 60000x60000 pixels, more than 178956970." },
            { PreflightCategory.CmykImage, PictureBytes.CmykTiff(), "has CMYK colours, which become RGB without a colour profile, as in Pillow. Convert it to RGB if" },
            { PreflightCategory.SixteenBitImage, PictureBytes.Png(16), "has 16 bits per sample, of which 8 remain as in Pillow: grey above 255 turns white. Convert it" },
            { PreflightCategory.RotatedImage, [.. jpeg[..2], .. PictureBytes.App1(PictureBytes.Exif(8, true)), .. jpeg[2..]],
                "has EXIF orientation 8, which is not applied, as in LLaVA. Turn the picture itself if the model should see it upright." },
            { PreflightCategory.RotatedImage, PictureBytes.Png(8, 5, 3, PictureBytes.Chunk("eXIf", PictureBytes.Exif(3, false))), "has EXIF orientation 3" },
        };
    }

    [Theory, MemberData(nameof(Fixtures))]
    public void An_odd_or_damaged_picture_has_its_category_and_its_sample(PreflightCategory category, byte[] content, string text)
    {
        File.WriteAllBytes(Path.Combine(_data.Images, "odd.img"), content);
        File.WriteAllBytes(Path.Combine(_data.Images, "good.img"), PictureBytes.Png());
        var dataset = new LlavaDataset(
            [TinyData.Sample(0, "<image>\nWhat?", "A bus.", "good.img"), TinyData.Sample(1, "<image>\nWhat?", "A bus.", "odd.img")], _data.Encoder());
        var finding = Assert.Single(dataset.Preflight(null, null, Token).Findings);
        string path = Path.Combine(_data.Images, "odd.img");
        Assert.Equal((1, "s1", category, path), (finding.Place, finding.SampleId, finding.Category, finding.File));
        Assert.StartsWith($"Sample 's1' (record 1): its image '{path}' ", finding.Message);
        Assert.Contains(text, finding.Message);
        bool warning = category is PreflightCategory.CmykImage or PreflightCategory.SixteenBitImage or PreflightCategory.RotatedImage;
        Assert.Equal(warning ? PreflightSeverity.Warning : PreflightSeverity.Error, finding.Severity);
        Assert.Equal(!warning, category.IsImageFault());
        // The trainer sees what the preflight saw.
        if (warning) dataset.Encode(1).Dispose();
        else Assert.Equal(finding.Message, Assert.Throws<SampleException>(() => dataset.Encode(1)).Message);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(4)]
    public void Every_fault_is_found_and_the_rest_can_be_trained_on(int workers)
    {
        File.WriteAllText(Path.Combine(_data.Images, "text.png"), "no picture");
        Directory.CreateDirectory(Path.Combine(_data.Images, "folder.png"));
        LlavaSample[] samples =
        [
            TinyData.Sample(0, "<image>\nWhat?", "A bus.", _data.Pictures[0]),
            TinyData.Sample(1, "<image>\nWhat?", "A bus.", "none.png"),
            TinyData.Sample(2, "<image>\n<image>\nWhat?", "A bus.", "text.png", "none.png"),
            TinyData.Sample(3, "What?", "A bus.", _data.Pictures[0]),
            new LlavaSample(4, "s4", [], [new("human", "What?")]),
            new LlavaSample(5, "s5", [], [new("human", "What?"), new("human", "What?")]),
            TinyData.Sample(6, "What?", new string('x', 900)),
            TinyData.Sample(7, new string('x', 900), "A bus."),
            TinyData.Sample(8, "What?", "A bus."),
        ];
        var processor = TinyData.Processor.WithTokenizer(TinyData.Tokenizer.WithModelMaxLength(300));
        var dataset = new LlavaDataset(samples, _data.Encoder(DataOptions.LlavaExact, processor));
        var seen = new Collected();
        var report = dataset.Preflight(new PreflightOptions { Workers = workers, FeaturesPerTile = 40 }, seen, Token);
        Assert.Equal(
        [
            (1, PreflightCategory.MissingImage), (2, PreflightCategory.MissingImage), (2, PreflightCategory.NotAnImage), (3, PreflightCategory.PlaceholderCount),
            (4, PreflightCategory.NothingSupervised), (5, PreflightCategory.Conversation), (6, PreflightCategory.TooLong), (7, PreflightCategory.NothingSupervised),
        ], report.Findings.Select(f => (f.Place, f.Category)));
        Assert.Equal([0, 6, 8], report.UsablePlaces);
        Assert.Equal(Path.Combine(_data.Images, "none.png"), report.Findings[0].File);
        Assert.Equal((2, 2), (report.Counts[PreflightCategory.MissingImage], report.Counts[PreflightCategory.NothingSupervised]));
        Assert.Matches(@"Sample 's6' \(record 6\): has \d+ tokens, above the limit of 300; its end will be cut off\. Shorten it, or raise model_max_length\.", report.Findings[6].Message);
        Assert.Matches(@"has \d+ tokens, and none of the first 300 is supervised\. Shorten it, or raise model_max_length\.", report.Findings[7].Message);
        Assert.False(report.IsClean);
        Assert.Equal(Enumerable.Range(1, 9), seen.Values.Select(v => v.Done).Order());
        Assert.All(seen.Values, v => Assert.Equal(9, v.Total));
        Assert.Equal(8, seen.Values.Max(v => v.Findings));

        using var first = _data.Encoder().Encode(samples[0]);
        using var last = _data.Encoder().Encode(samples[8]);
        var clean = dataset.Select([0, 8]).Preflight(new PreflightOptions { FeaturesPerTile = 40 }, null, Token);
        Assert.True(clean.IsClean);
        Assert.Equal(first.Length - 1 + 40 + last.Length, clean.Tokens);
        Assert.Equal(first.Length - 1 + 40, clean.LongestSample);
        Assert.Equal(first.Text.SupervisedCount + last.Text.SupervisedCount, clean.SupervisedTokens);
    }

    [Fact]
    public void A_file_that_cannot_be_read_is_told_from_one_that_is_not_there()
    {
        var processor = new LlavaProcessor(TinyData.Tokenizer, TinyData.Processor.Images, readImage: _ => throw new IOException("the disk is gone"));
        var dataset = new LlavaDataset([TinyData.Sample(0, "<image>\nWhat?", "A bus.", _data.Pictures[0])], _data.Encoder(processor: processor));
        var finding = Assert.Single(dataset.Preflight(null, null, Token).Findings);
        Assert.Equal(PreflightCategory.UnreadableImage, finding.Category);
        Assert.Contains("cannot be used: the disk is gone", finding.Message);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_picture_is_read_once_and_its_header_is_known_all_the_same(bool own)
    {
        File.WriteAllBytes(Path.Combine(_data.Images, "deep.png"), PictureBytes.Png(16, 5, 3, PictureBytes.Chunk("eXIf", PictureBytes.Exif(6, little: false))));
        var processor = new LlavaProcessor(TinyData.Tokenizer, TinyData.Processor.Images, readImage: path =>
        {
            var picture = ImageDecoder.Decode(path);
            if (own) return new RgbImage(picture.Width, picture.Height, picture.Pixels);       // a reader that says nothing of headers
            File.Delete(path);
            return picture;
        });
        var dataset = new LlavaDataset([TinyData.Sample(0, "<image>\nWhat?", "A bus.", "deep.png")], _data.Encoder(processor: processor));
        Assert.Equal([PreflightCategory.SixteenBitImage, PreflightCategory.RotatedImage], dataset.Preflight(null, null, Token).Findings.Select(f => f.Category));
    }

    [Fact]
    public void A_picture_too_long_and_thin_is_found_and_can_be_blanked()
    {
        var images = new ClipImageProcessor(ImageProcessorConfig.Clip(20) with { DoResize = false }, AspectPolicy.Pad);
        var processor = new LlavaProcessor(TinyData.Tokenizer, images, readImage: path => new RgbImage(1, path.EndsWith("thin.png", StringComparison.Ordinal) ? 60_000 : 70));
        LlavaSample[] samples = [TinyData.Sample(0, "<image>\nWhat?", "A bus.", "long.png"), TinyData.Sample(1, "<image>\nWhat?", "A bus.", "thin.png")];
        // The file has to be there, or it is the missing one that is told of.
        File.WriteAllText(Path.Combine(_data.Images, "thin.png"), "");
        var dataset = new LlavaDataset(samples, _data.Encoder(processor: processor));
        var finding = Assert.Single(dataset.Preflight(null, null, Token).Findings);
        Assert.Equal((1, PreflightCategory.ExtremeShape), (finding.Place, finding.Category));
        Assert.Contains("thin.png' cannot be used: Processing this picture needs an intermediate picture of 60000x60000, which is too large.", finding.Message);
        var e = Assert.Throws<SampleException>(() => dataset.Encode(1));
        Assert.Equal((SampleProblem.BadImage, finding.Message), (e.Problem, e.Message));
        using var blank = dataset.Apply(dataset.Preflight(null, null, Token), PreflightPolicy.Blank).Encode(1);
        Assert.Equal([1, 3, 20, 20], blank.Images[0].Pixels.shape);
        LeakGuard.AssertFlat(2, () => Assert.Throws<SampleException>(() => dataset.Encode(1)));
    }

    [Fact]
    public void Images_are_only_looked_for_if_that_is_enough()
    {
        File.WriteAllText(Path.Combine(_data.Images, "text.png"), "no picture");
        var dataset = new LlavaDataset([TinyData.Sample(0, "<image>\nWhat?", "A bus.", "text.png")], _data.Encoder());
        Assert.True(dataset.Preflight(new PreflightOptions { DecodeImages = false }, null, Token).IsClean);
        Assert.False(dataset.Preflight(null, null, Token).IsClean);

        dataset = new LlavaDataset([TinyData.Sample(0, "<image>\nWhat?", "A bus.", "none.png")], _data.Encoder());
        var report = dataset.Preflight(new PreflightOptions { DecodeImages = false }, null, Token);
        Assert.Equal(PreflightCategory.MissingImage, report.Findings[0].Category);
        Assert.Contains("none.png' is not there. Check the image folder", report.Findings[0].Message);
    }

    [Fact]
    public void Pictures_that_exist_in_memory_alone_are_found()
    {
        using var tiny = TinyLlava.Create();
        var report = tiny.Dataset(5).Preflight(PreflightOptions.For(tiny.Model.Config, 200), null, Token);
        Assert.True(report.IsClean);
        var training = new LlavaTrainingData(tiny.Dataset(5), tiny.Model.Config);
        using var batch = training.Batch([0, 1, 2, 3, 4]);
        Assert.Equal(batch.Layout.Lengths.Sum(), report.Tokens);
        Assert.Equal(batch.Layout.Lengths.Max(), report.LongestSample);
    }

    [Fact]
    public void Cancelling_stops_the_work()
    {
        using var tiny = TinyLlava.Create();
        using var source = new CancellationTokenSource();
        int done = 0;
        var stopAtThree = new Collected { OnReport = p => { if (Interlocked.Increment(ref done) == 3) source.Cancel(); } };
        Assert.Throws<OperationCanceledException>(() => tiny.Dataset(3000).Preflight(new PreflightOptions { Workers = 2 }, stopAtThree, source.Token));
        Assert.InRange(done, 3, 100);
    }

    private sealed class Collected : IProgress<PreflightProgress>
    {
        public List<PreflightProgress> Values { get; } = [];

        public Action<PreflightProgress>? OnReport { get; init; }

        public void Report(PreflightProgress value)
        {
            lock (Values) Values.Add(value);
            OnReport?.Invoke(value);
        }
    }
}
