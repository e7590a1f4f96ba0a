using Peft.Testing;
using TorchSharp;
using Xunit;

namespace Peft.Llava.Tests.Data;

public sealed class LlavaCollatorTests : IDisposable
{
    private readonly TinyData _data = new();
    private readonly TinyLlava _tiny = TinyLlava.Create(seed: 3);

    public void Dispose()
    {
        _data.Dispose();
        _tiny.Dispose();
    }

    [Fact]
    public void A_data_set_becomes_batches_that_the_model_takes()
    {
        var dataset = Dataset(new DataOptions());
        var collator = Collator(new DataOptions());
        using var first = dataset.Encode(0);
        using var second = dataset.Encode(1);
        using var batch = collator.Collate([first, second]);
        Assert.Equal([first.Length - 1 + batch.FeaturesPerTile, second.Length], batch.Layout.Lengths);
        Assert.Equal(first.Text.SupervisedCount + second.Text.SupervisedCount, batch.SupervisedTokens);
        var (sum, count) = _tiny.Model.LossSum(batch);
        using (sum) Assert.True(double.IsFinite(sum.ToDouble()));
        Assert.Equal(batch.SupervisedTokens, count);
    }

    [Fact]
    public void An_image_whose_placeholder_is_cut_off_goes_with_it()
    {
        var processor = new LlavaProcessor(_tiny.Tokenizer.WithModelMaxLength(20), _tiny.Processor.Images);
        var encoder = _data.Encoder(processor: processor);
        using var sample = encoder.Encode(new LlavaSample(0, "x", [.. _data.Pictures.Take(2)],
            [new("human", "<image>"), new("gpt", "a"), new("human", new string('q', 40) + "<image>"), new("gpt", "b")]));
        var collator = new LlavaCollator(processor.Tokenizer.WithModelMaxLength(sample.Length - 20), builder: new LlavaBatchBuilder(_tiny.Model.Config));
        using var batch = collator.Collate([sample]);
        Assert.Equal(1, batch.TileCount);
    }

    [Fact]
    public void As_LLaVA_does_it_a_literal_unknown_token_disappears_and_text_brings_a_zero_picture()
    {
        var dataset = new LlavaDataset([TinyData.Sample(0, "Say <unk>", "one")], new SampleEncoder(Processor, _data.Images, DataOptions.LlavaExact));
        var builder = new LlavaBatchBuilder(_tiny.Model.Config, new LlavaBatchOptions { TextOnlySamplesOwnAnImage = true });
        using var sample = dataset.Encode(0);
        using var exact = new LlavaCollator(_tiny.Tokenizer, DataOptions.LlavaExact, builder).Collate([sample]);
        Assert.Equal([sample.Length - 1], exact.Layout.Lengths);
        Assert.Equal(1, exact.TileCount);
        using var plain = Collator(new DataOptions()).Collate([sample]);
        Assert.Equal([sample.Length], plain.Layout.Lengths);
        Assert.Equal(0, plain.TileCount);
    }

    [Fact]
    public void Prefetched_batches_are_the_same_whatever_the_workers()
    {
        var dataset = Dataset(new DataOptions());
        IReadOnlyList<IReadOnlyList<int>> order = [[1, 0], [2], [0, 2, 1], [1]];
        var expected = Read(new PrefetchOptions { Workers = 1, BatchesAhead = 1 });
        Assert.Equal(expected, Read(new PrefetchOptions { Workers = 3, BatchesAhead = 4 }));

        List<string> Read(PrefetchOptions options)
        {
            var read = new List<string>();
            foreach (var batch in PrefetchLoader.Batches(dataset, Collator(new DataOptions()), order, options, TestContext.Current.CancellationToken))
            {
                using (batch) read.Add($"{string.Join(",", batch.SampleIds)} {string.Join(",", batch.TokenIds.data<long>())} {batch.TileCount}");
            }
            return read;
        }
    }

    [Fact]
    public void Merging_needs_the_models_builder()
    {
        using var sample = Dataset(new DataOptions()).Encode(1);
        var e = Assert.Throws<InvalidOperationException>(() => new LlavaCollator(_tiny.Tokenizer).Collate([sample]));
        Assert.Contains("made without a LlavaBatchBuilder", e.Message);
    }

    [Fact]
    public void Leaves_no_tensors_behind()
    {
        var dataset = Dataset(new DataOptions());
        var collator = Collator(new DataOptions());
        LeakGuard.AssertFlat(3, () =>
        {
            using var sample = dataset.Encode(0);
            using var batch = collator.Collate([sample]);
        });
    }

    private LlavaProcessor Processor => new(_tiny.Tokenizer, _tiny.Processor.Images);

    private LlavaCollator Collator(DataOptions options) => new(_tiny.Tokenizer, options, new LlavaBatchBuilder(_tiny.Model.Config));

    private LlavaDataset Dataset(DataOptions options) => new(
    [
        TinyData.Sample(0, "<image>\nWhat is this?", "a red ball", _data.Pictures[0]),
        TinyData.Sample(1, "Name a color", "blue and green"),
        TinyData.Sample(2, "Which?\n<image>", "the cat", _data.Pictures[1]),
    ], new SampleEncoder(Processor, _data.Images, options));
}
