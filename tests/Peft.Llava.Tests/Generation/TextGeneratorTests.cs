using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests;

public sealed class TextGeneratorTests
{
    [Fact]
    public void Prompts_of_a_batch_are_continued_as_each_alone()
    {
        using var scope = NewDisposeScope();
        using var tiny = TinyLlava.Create(7);
        LlavaBatchSample[] samples = [new("a", [1, 9, 8, 20, 31], null, []), new("b", [1, 5], null, []), new("c", [1, 44, -200, 6], null, [Image()])];
        var options = new GenerationOptions { MaxNewTokens = 9, EosTokenIds = [] };
        var together = Generate(tiny, options, samples);
        for (int i = 0; i < samples.Length; i++) Assert.Equal(together.TokenIds[i], Generate(tiny, options, samples[i]).TokenIds[0]);
    }

    [Fact]
    public void The_same_seed_draws_the_same_text_and_another_one_another()
    {
        using var scope = NewDisposeScope();
        using var tiny = TinyLlava.Create(7);
        IReadOnlyList<int> Draw(long seed) => Generate(
            tiny, new() { MaxNewTokens = 12, EosTokenIds = [], Sampling = new() { Seed = seed, Temperature = 1.5, TopK = 40, TopP = 0.9 } }, new LlavaBatchSample("a", [1, 5], null, [])).TokenIds[0];
        Assert.Equal(Draw(4), Draw(4));
        Assert.NotEqual(Draw(4), Draw(5));
    }

    [Fact]
    public void Steps_are_told_as_they_come_and_a_stop_rule_ends_its_sample_alone()
    {
        using var scope = NewDisposeScope();
        using var tiny = TinyLlava.Create(7);
        var steps = new List<GenerationStep>();
        var result = Generate(tiny, new()
        {
            MaxNewTokens = 5, EosTokenIds = [], OnStep = steps.Add, ShouldStop = (row, ids) => row == 0 && ids.Count == 2,
        }, new("a", [1, 5], null, []), new("b", [1, 6, 7], null, []));
        Assert.Equal([2, 5], result.TokenIds.Select(ids => ids.Count));
        Assert.Equal([0, 1, 2, 3, 4], steps.Select(s => s.Index));
        Assert.Null(steps[2].TokenIds[0]);
        Assert.Equal(result.TokenIds[1][2], steps[2].TokenIds[1]);
        Assert.Equal([result.TokenIds[0][0], result.TokenIds[0][1], 0, 0, 0], result.ToTensor(0)[0].data<long>().Select(id => (int)id));
    }

    [Fact]
    public void Cancelling_ends_it_between_two_tokens()
    {
        using var scope = NewDisposeScope();
        using var tiny = TinyLlava.Create(7);
        using var source = new CancellationTokenSource();
        using var batch = Batch(tiny, new LlavaBatchSample("a", [1, 5], null, []));
        int told = 0;
        Assert.Throws<OperationCanceledException>(() => new TextGenerator(tiny.Model).Generate(batch, new()
        {
            MaxNewTokens = 50, EosTokenIds = [], KeepScores = true, OnStep = s => { if (++told == 3) source.Cancel(); },
        }, source.Token));
        Assert.Equal(3, told);
    }

    [Fact]
    public void The_model_is_left_in_the_mode_it_was_found_in()
    {
        using var scope = NewDisposeScope();
        using var tiny = TinyLlava.Create(7);
        tiny.Model.train();
        Generate(tiny, new() { MaxNewTokens = 2 }, new LlavaBatchSample("a", [1, 5], null, []));
        Assert.True(tiny.Model.training);
    }

    [Fact]
    public void Generating_leaves_no_tensor_behind_even_when_cancelled()
    {
        using var tiny = TinyLlava.Create(7);
        using var image = zeros(1, 3, 28, 28);
        using var batch = Batch(tiny, new("a", [1, -200, 5], null, [new ImageTiles(image, new ImageSize(28, 28))]), new("b", [1, 8], null, []));
        var generator = new TextGenerator(tiny.Model);
        LeakGuard.AssertFlat(3, () => generator.Generate(batch, new() { MaxNewTokens = 6, RepetitionPenalty = 1.2, Sampling = new() { TopK = 5 } }));
        LeakGuard.AssertFlat(3, () =>
        {
            foreach (var scores in generator.Generate(batch, new() { MaxNewTokens = 6, KeepScores = true }).Scores) scores.Dispose();
        });
        LeakGuard.AssertFlat(3, () => Assert.Throws<InvalidOperationException>(() => generator.Generate(batch, new()
        {
            MaxNewTokens = 6, KeepScores = true, OnStep = s => throw new InvalidOperationException(),
        })));
    }

    private static ImageTiles Image() => new(zeros(1, 3, 28, 28), new ImageSize(28, 28));

    private static LlavaBatch Batch(TinyLlava tiny, params LlavaBatchSample[] samples) => new LlavaBatchBuilder(tiny.Model.Config).Build(samples);

    private static GenerationResult Generate(TinyLlava tiny, GenerationOptions options, params LlavaBatchSample[] samples)
    {
        using var batch = Batch(tiny, samples);
        return new TextGenerator(tiny.Model).Generate(batch, options);
    }
}
