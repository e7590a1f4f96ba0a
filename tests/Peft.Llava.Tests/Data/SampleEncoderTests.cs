using Peft.Testing;
using Xunit;

namespace Peft.Llava.Tests.Data;

public sealed class SampleEncoderTests : IDisposable
{
    private readonly TinyData _data = new();

    public void Dispose() => _data.Dispose();

    [Fact]
    public void A_missing_image_names_sample_and_file()
    {
        var e = Fails(TinyData.Sample(3, "<image>\nWhat?", "A bus.", "none.png"));
        Assert.Equal((SampleProblem.MissingImage, "s3", 3), (e.Problem, e.SampleId, e.Index));
        Assert.Equal(Path.Combine(_data.Images, "none.png"), e.File);
        Assert.Contains($"Sample 's3' (record 3): its image '{e.File}' is not there. Check the image folder", e.Message);
    }

    [Fact]
    public void A_damaged_image_names_sample_and_file()
    {
        string file = Path.Combine(_data.Images, "bad.png");
        File.WriteAllBytes(file, [.. File.ReadAllBytes(Path.Combine(_data.Images, _data.Pictures[0])).Take(60)]);
        var e = Fails(TinyData.Sample(0, "<image>\nWhat?", "A bus.", "bad.png"));
        Assert.Equal((SampleProblem.BadImage, file), (e.Problem, e.File));
        Assert.Contains($"its image '{file}' cannot be used: ", e.Message);
    }

    [Fact]
    public void A_blank_picture_takes_the_place_of_a_bad_one_if_that_is_wanted()
    {
        using var sample = _data.Encoder(new DataOptions { BadImages = BadImagePolicy.Blank })
            .Encode(TinyData.Sample(0, "<image>\nWhat?", "A bus.", "none.png"));
        Assert.Equal([1, 3, 14, 14], sample.Images[0].Pixels.shape);
        Assert.Single(sample.Text.Ids, LlamaTokenizer.ImageTokenId);
    }

    [Theory]
    [InlineData("What?", 1, "has 1 image(s) but 0 <image> placeholder(s). Write one placeholder per image")]
    [InlineData("<image> and?", 2, "has 2 image(s) but 1 <image> placeholder(s).")]
    [InlineData("<image>", 0, "has 0 image(s) but 1 <image> placeholder(s).")]
    public void Placeholders_and_images_must_be_as_many(string question, int images, string text)
    {
        var e = Fails(TinyData.Sample(1, question, "A bus.", [.. _data.Pictures.Take(images)]));
        Assert.Equal(SampleProblem.PlaceholderCount, e.Problem);
        Assert.Contains(text, e.Message);
    }

    [Fact]
    public void A_conversation_that_cannot_be_written_is_refused_with_its_sample()
    {
        var e = Fails(new LlavaSample(5, "x", [], [new("human", "a"), new("human", "b")]));
        Assert.Equal(SampleProblem.Conversation, e.Problem);
        Assert.Contains("Sample 'x' (record 5): The template 'vicuna_v1' cannot write the conversation: turn 1 is from 'human'", e.Message);
    }

    [Fact]
    public void A_sample_with_nothing_to_learn_is_refused_with_template_and_counts()
    {
        var e = Fails(new LlavaSample(2, "q", [], [new("human", "What?")]));
        Assert.Equal(SampleProblem.NothingSupervised, e.Problem);
        Assert.Matches(@"Sample 'q' \(record 2\): none of its \d+ tokens is supervised with the template 'vicuna_v1': no turn of 'gpt' holds text\.", e.Message);

        var exact = new DataOptions { Labels = LabelMode.LlavaExact };
        e = Fails(TinyData.Sample(0, "Say ASSISTANT: now", "A bus ASSISTANT: done."), exact);
        Assert.Matches(@"LLaVA counts \d+ tokens where there are \d+\.", e.Message);

        var shortOnes = TinyData.Processor.WithTokenizer(TinyData.Tokenizer.WithModelMaxLength(9));
        e = Assert.Throws<SampleException>(() => _data.Encoder(processor: shortOnes).Encode(TinyData.Sample(0, "What?", "A bus.")));
        Assert.Contains("its 9 tokens end before the first answer (model_max_length 9)", e.Message);

        using var kept = _data.Encoder(exact with { Unsupervised = UnsupervisedPolicy.Keep })
            .Encode(TinyData.Sample(0, "Say ASSISTANT: now", "A bus ASSISTANT: done."));
        Assert.Equal(0, kept.Text.SupervisedCount);
    }

    [Fact]
    public void An_image_needs_an_image_side()
    {
        var text = new LlavaProcessor(TinyData.Tokenizer);
        var e = Assert.Throws<SampleException>(() => _data.Encoder(processor: text).Encode(TinyData.Sample(0, "<image>", "A bus.", "x.png")));
        Assert.Contains("names the image 'x.png', but the processor has no image side. Give the LlavaProcessor an IImageProcessor.", e.Message);
        var zero = Assert.Throws<ArgumentException>(() => _data.Encoder(new DataOptions { ZeroImageForTextOnly = true }, text)
            .Encode(TinyData.Sample(0, "What?", "A bus.")));
        Assert.Contains("A zero picture needs a LlavaProcessor with an IImageProcessor.", zero.Message);
    }

    [Fact]
    public void Several_images_keep_their_order_and_places()
    {
        using var sample = _data.Encoder().Encode(TinyData.Sample(0, "This <image> or that <image>?", "The first.", _data.Pictures[1], _data.Pictures[0]));
        Assert.Equal(2, sample.Images.Count);
        Assert.Equal(2, sample.Text.Ids.Count(id => id == LlamaTokenizer.ImageTokenId));
        Assert.Equal("This <image> or that <image>?", sample.Text.Prompt.Text.Split("USER: ")[1].Split(" ASSISTANT")[0]);
    }

    [Fact]
    public void Leaves_no_tensors_behind() => LeakGuard.AssertFlat(3, () =>
    {
        using var sample = _data.Encoder().Encode(TinyData.Sample(0, "<image>\nWhat?", "A bus.", _data.Pictures[0]));
        using var stacked = new LlavaCollator(TinyData.Tokenizer).Stack([sample]);
        Assert.Contains("none.png' is not there.", Assert.Throws<SampleException>(() => _data.Encoder().Encode(TinyData.Sample(0, "<image><image>", "A bus.", _data.Pictures[0], "none.png"))).Message, StringComparison.Ordinal);
    });

    private SampleException Fails(LlavaSample sample, DataOptions? options = null)
        => Assert.Throws<SampleException>(() => _data.Encoder(options).Encode(sample));
}
