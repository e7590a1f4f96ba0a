using Xunit;

namespace Peft.Llava.Tests.Data;

public sealed class LlavaSampleBuilderTests
{
    [Fact]
    public void Placeholders_go_in_front_unless_the_text_has_its_own()
    {
        var builder = new LlavaSampleBuilder("x").User("What is this?", "a.png", "b.png").Assistant("Two things.");
        var sample = builder.Build(4);
        builder.User("Is <image> another?", "c.png").Assistant("Yes.");
        Assert.Equal(("x", 4), (sample.Id, sample.Index));
        Assert.Equal(["a.png", "b.png"], sample.Images);
        Assert.Equal([new ConversationTurn("human", "<image>\n<image>\nWhat is this?"), new ConversationTurn("gpt", "Two things.")], sample.Turns);
        var longer = builder.Build();
        Assert.Equal(["a.png", "b.png", "c.png"], longer.Images);
        Assert.Equal("Is <image> another?", longer.Turns[2].Value);
    }

    [Fact]
    public void A_built_sample_encodes_like_the_same_one_from_a_file()
    {
        using var data = new TinyData();
        using var built = data.Encoder().Encode(new LlavaSampleBuilder("s0").User("What?", data.Pictures[0]).Assistant("A bus.").Build());
        using var read = data.Encoder().Encode(TinyData.Sample(0, "<image>\nWhat?", "A bus.", data.Pictures[0]));
        Assert.Equal(read.Text.Ids, built.Text.Ids);
        Assert.Equal(read.Text.Labels, built.Text.Labels);
    }

    [Fact]
    public void What_cannot_be_trained_on_is_refused()
    {
        Refused(b => b, SampleProblem.NothingSupervised, "Sample 'x' (record 0): does not end with an answer, which is what is learned. Call Assistant last.");
        Refused(b => b.User("q"), SampleProblem.NothingSupervised, "does not end with an answer");
        Refused(b => b.User("q", "").Assistant("a"), SampleProblem.MissingImage, "has an image with an empty file name. Name the file, or leave the image out.");
        Refused(b => b.User("q").Assistant(" "), SampleProblem.Conversation,
            "turn 1, of 'gpt', is empty (give it text, or remove the record). Correct the calls of User and Assistant.");
        Refused(b => b.User("q").User("q").Assistant("a"), SampleProblem.Conversation, "turns 0 and 1 are both from 'human'");
        Refused(b => b.User("<image> q", "a.png", "b.png").Assistant("a"), SampleProblem.PlaceholderCount, "it has 2 image(s) but 1 <image> placeholder(s)");
        Assert.Equal("The value cannot be an empty string. (Parameter 'id')", Assert.Throws<ArgumentException>(() => new LlavaSampleBuilder("")).Message);
    }

    private static void Refused(Func<LlavaSampleBuilder, LlavaSampleBuilder> build, SampleProblem problem, string text)
    {
        var e = Assert.Throws<SampleException>(() => build(new LlavaSampleBuilder("x")).Build());
        Assert.Equal(problem, e.Problem);
        Assert.Contains(text, e.Message);
    }
}
