using Peft.Core;
using Xunit;

namespace Peft.Llava.Tests.Data;

public sealed class SampleWriterTests : IDisposable
{
    private readonly TinyData _data = new();

    private readonly LlavaSample[] _samples =
    [
        new LlavaSampleBuilder("é\"1\\").User("Two\nlines, <b> & 😀?", "a b.png").Assistant("\ttab \u2028 \u0001 end").Build(0),
        new LlavaSampleBuilder("2").User("No picture").Assistant("ok").User("More").Assistant("done").Build(1),
        new LlavaSampleBuilder("3").User("<image> or <image>", "x/1.jpg", "x/2.jpg").Assistant("neither").Build(2),
    ];

    public void Dispose() => _data.Dispose();

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void What_is_written_is_read_again(bool lines)
    {
        string path = Path.Combine(_data.Folder, "out");
        (lines ? (Action<string, IReadOnlyList<LlavaSample>>)SampleWriter.WriteJsonLines : SampleWriter.WriteJson)(path, _samples);
        var read = (lines ? LlavaDataset.FromJsonLines(path, null, TinyData.Processor) : LlavaDataset.FromJson(path, null, TinyData.Processor)).Samples;
        Assert.Equal(_samples.Length, read.Count);
        foreach (var (expected, got) in _samples.Zip(read))
        {
            Assert.Equal((expected.Id, expected.Index), (got.Id, got.Index));
            Assert.Equal(expected.Images, got.Images);
            Assert.Equal(expected.Turns, got.Turns);
        }
        if (lines) Assert.Equal(3, File.ReadAllText(path).Count(c => c == '\n'));
    }

    [Fact]
    public void Records_have_LLaVAs_form()
    {
        string path = Path.Combine(_data.Folder, "out.jsonl");
        SampleWriter.WriteJsonLines(path, [.. _samples.Skip(1)]);
        Assert.Equal("""
            {"id":"2","conversations":[{"from":"human","value":"No picture"},{"from":"gpt","value":"ok"},{"from":"human","value":"More"},{"from":"gpt","value":"done"}]}
            {"id":"3","image":["x/1.jpg","x/2.jpg"],"conversations":[{"from":"human","value":"<image> or <image>"},{"from":"gpt","value":"neither"}]}

            """, File.ReadAllText(path));
    }

    [Fact]
    public void Half_a_character_is_refused_before_anything_is_written()
    {
        string path = _data.File("out.json", "before");
        var e = Assert.Throws<SampleException>(() => SampleWriter.WriteJson(path, [_samples[0], TinyData.Sample(1, "q \ud83d", "a")]));
        Assert.Equal("Sample 's1' (record 1): holds half of a surrogate pair. Correct the text; it was cut within a character.", e.Message);
        Assert.Equal("before", File.ReadAllText(path));
    }

    [Fact]
    public void A_folder_that_is_not_there_is_named()
    {
        string path = Path.Combine(_data.Folder, "none", "out.json");
        Assert.Equal($"{path} could not be written: its folder does not exist. An earlier file of this name is as it was. Create {Path.GetDirectoryName(path)} first, or correct the path.",
            Assert.Throws<FileWriteException>(() => SampleWriter.WriteJson(path, _samples)).Message);
    }
}
