using Xunit;

namespace Peft.Llava.Tests.Data;

public sealed class PreflightTests : IDisposable
{
    private readonly TinyData _data = new();

    public void Dispose() => _data.Dispose();

    [Theory]
    [InlineData(1)]
    [InlineData(4)]
    public void Every_fault_is_found_and_the_rest_can_be_trained_on(int workers)
    {
        File.WriteAllText(Path.Combine(_data.Images, "text.png"), "no picture");
        LlavaSample[] samples =
        [
            TinyData.Sample(0, "<image>\nWhat?", "A bus.", _data.Pictures[0]),
            TinyData.Sample(1, "<image>\nWhat?", "A bus.", "none.png"),
            TinyData.Sample(2, "<image>\nWhat?", "A bus.", "text.png"),
            TinyData.Sample(3, "What?", "A bus.", _data.Pictures[0]),
            new LlavaSample(4, "s4", [], [new("human", "What?")]),
            new LlavaSample(5, "s5", [], [new("human", "What?"), new("human", "What?")]),
            TinyData.Sample(6, "What?", new string('x', 900)),
            TinyData.Sample(7, new string('x', 900), "A bus."),
            TinyData.Sample(8, "What?", "A bus."),
        ];
        var processor = TinyData.Processor.WithTokenizer(TinyData.Tokenizer.WithModelMaxLength(300));
        var dataset = new LlavaDataset(samples, _data.Encoder(DataOptions.LlavaExact, processor));
        var report = dataset.Examine(new PreflightOptions { Workers = workers, FeaturesPerTile = 40 }, TestContext.Current.CancellationToken);
        Assert.Equal(
        [
            (1, SampleProblem.MissingImage), (2, SampleProblem.BadImage), (3, SampleProblem.PlaceholderCount), (4, SampleProblem.NothingSupervised),
            (5, SampleProblem.Conversation), (6, SampleProblem.TooLong), (7, SampleProblem.NothingSupervised),
        ], report.Findings.Select(f => (f.Place, f.Problem)));
        Assert.Equal([0, 6, 8], report.UsablePlaces);
        Assert.Equal(Path.Combine(_data.Images, "none.png"), report.Findings[0].File);
        Assert.Matches(@"Sample 's6' \(record 6\): has \d+ tokens, above the limit of 300; its end would be cut off\.", report.Findings[5].Message);
        Assert.Matches(@"has \d+ tokens, and none of the first 300 is supervised\.", report.Findings[6].Message);
        Assert.StartsWith($"9 samples, {report.Tokens} tokens, {report.SupervisedTokens} supervised, longest {report.LongestSample}, 7 fault(s)\n", report.ToString());
        Assert.False(report.IsClean);

        using var first = _data.Encoder().Encode(samples[0]);
        using var last = _data.Encoder().Encode(samples[8]);
        var clean = dataset.Select([0, 8]).Examine(new PreflightOptions { FeaturesPerTile = 40 }, TestContext.Current.CancellationToken);
        Assert.True(clean.IsClean);
        Assert.Equal(first.Length - 1 + 40 + last.Length, clean.Tokens);
        Assert.Equal(first.Text.SupervisedCount + last.Text.SupervisedCount, clean.SupervisedTokens);
    }

    [Fact]
    public void Images_are_only_looked_for_if_that_is_enough()
    {
        File.WriteAllText(Path.Combine(_data.Images, "text.png"), "no picture");
        var dataset = new LlavaDataset([TinyData.Sample(0, "<image>\nWhat?", "A bus.", "text.png")], _data.Encoder());
        var token = TestContext.Current.CancellationToken;
        Assert.True(dataset.Examine(new PreflightOptions { DecodeImages = false }, token).IsClean);
        Assert.False(dataset.Examine(null, token).IsClean);

        dataset = new LlavaDataset([TinyData.Sample(0, "<image>\nWhat?", "A bus.", "none.png")], _data.Encoder());
        var report = dataset.Examine(new PreflightOptions { DecodeImages = false }, token);
        Assert.Contains("none.png' is not there. Check the image folder", report.Findings[0].Message);
    }

    [Fact]
    public void Pictures_that_exist_in_memory_alone_are_found()
    {
        using var tiny = TinyLlava.Create();
        Assert.True(tiny.Dataset(5).Examine(null, TestContext.Current.CancellationToken).IsClean);
    }
}
