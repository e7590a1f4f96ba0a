using System.Diagnostics;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests;

public sealed class TinyLlavaTests
{
    [Fact]
    public void The_tokenizer_gives_back_any_text_and_joins_its_words()
    {
        using var tiny = TinyLlava.Create();
        foreach (string text in new[] { "USER: Name this picture. ASSISTANT: red apple</s>", "a\nb\tc", "naïve 🍎 ok", "  two  spaces" })
            Assert.Equal(text, tiny.Tokenizer.Decode(tiny.Tokenizer.Encode(text, addSpecialTokens: false)));
        Assert.Equal([1, tiny.Tokenizer.IdOf("▁red")!.Value, tiny.Tokenizer.IdOf("▁apple")!.Value], tiny.Tokenizer.Encode("red apple"));
        Assert.Equal(2, tiny.Tokenizer.EosId);
    }

    [Fact]
    public void The_same_seed_gives_the_same_weights_and_another_one_others()
    {
        using var scope = NewDisposeScope();
        using var one = TinyLlava.Create(7);
        using var two = TinyLlava.Create(7);
        using var other = TinyLlava.Create(8);
        var pairs = one.Model.named_parameters().Zip(two.Model.named_parameters()).ToList();
        Assert.All(pairs, pair => TensorAssert.Equal(pair.First.parameter, pair.Second.parameter, pair.First.name));
        Assert.False(one.Model.named_parameters().First().parameter.allclose(other.Model.named_parameters().First().parameter));
    }

    [Fact]
    public void Making_one_takes_less_than_a_second_and_leaves_nothing_behind()
    {
        TinyLlava.Create().Dispose();
        var watch = Stopwatch.StartNew();
        TinyLlava.Create(1, ScalarType.BFloat16).Dispose();
        Assert.True(watch.Elapsed < TimeSpan.FromSeconds(1), $"took {watch.Elapsed}");
        LeakGuard.AssertFlat(3, () => TinyLlava.Create(2).Dispose());
    }

    [Fact]
    public void Its_samples_become_batches_with_pictures_and_supervised_answers()
    {
        using var tiny = TinyLlava.Create();
        var data = tiny.Dataset(6);
        var collator = new LlavaCollator(tiny.Tokenizer, builder: new LlavaBatchBuilder(tiny.Model.Config));
        var encoded = Enumerable.Range(0, data.Count).Select(data.Encode).ToList();
        using var batch = collator.Collate(encoded);
        encoded.ForEach(e => e.Dispose());
        Assert.Equal([6, 3, 28, 28], batch.Pixels!.shape);
        Assert.Equal(6 * 2, batch.SupervisedTokens);   // the colour and the end
        Assert.Equal(["red", "green", "blue", "yellow", "red", "green"], data.Samples.Select(s => s.Turns[1].Value));
        using var scope = NewDisposeScope();
        var (sum, count) = tiny.Model.LossSum(batch);
        Assert.Equal(12, count);
        Assert.True(sum.ToDouble() is > 10 and < 200, $"loss {sum.ToDouble()}");
    }
}
