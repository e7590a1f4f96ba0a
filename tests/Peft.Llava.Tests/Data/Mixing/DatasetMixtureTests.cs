using Peft.Core;
using Peft.Testing;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Data;

public sealed class DatasetMixtureTests : IDisposable
{
    private readonly TinyLlava _tiny = TinyLlava.Create(seed: 6);
    private readonly string _folder = Directory.CreateTempSubdirectory("mixture").FullName;

    public void Dispose()
    {
        _tiny.Dispose();
        Directory.Delete(_folder, recursive: true);
    }

    [Theory]
    [InlineData(SampleOrdering.Shuffled)]
    [InlineData(SampleOrdering.Sequential)]
    [InlineData(SampleOrdering.ByLength)]
    [InlineData(SampleOrdering.ByModalityLength)]
    public void Samples_and_losses_depend_on_neither_workers_nor_interruptions(SampleOrdering ordering)
    {
        var options = Options with { Ordering = ordering };
        var (ids, losses) = Train(options, null);
        Assert.Equal(24, ids.Count);
        // 12 samples an epoch: 8 of the 9 pictures, 4 of the 5 texts.
        foreach (var epoch in ids.Chunk(12))
        {
            Assert.Equal((8, 4), (epoch.Count(i => i.StartsWith("pictures/tiny-", StringComparison.Ordinal)), epoch.Count(i => i.StartsWith("texts/t", StringComparison.Ordinal))));
        }
        Assert.Equal(12, ids.Take(12).Distinct().Count());
        Assert.Equal(14, ids.Distinct().Count());
        Assert.Equal((ids, losses), Train(options with { DataWorkers = 3 }, null), new Same());

        Train(options with { SaveStrategy = SaveStrategy.Steps, SaveSteps = 1 }, null);
        foreach (int from in new[] { 1, 3, 5 })
        {
            var (rest, restLosses) = Train(options, Path.Combine(_folder, TrainingCheckpoint.NameOf(from)));
            Assert.Equal(ids.Skip(4 * from), rest);
            Assert.Equal(losses.Skip(from), restLosses);
        }
    }

    [Fact]
    public void A_batch_holds_what_its_sources_encode()
    {
        var data = new MixtureTrainingData(Mixture(), _tiny.Model.Config, 200);
        Assert.Equal(14, data.Count);
        Assert.Equal(_tiny.Dataset(9).ModalityLengths.Concat(Texts().ModalityLengths), data.ModalityLengths);
        using var mixed = data.Batch([10, 2, 13]);
        Assert.Equal(["texts/t1", "pictures/tiny-2", "texts/t4"], mixed.SampleIds);
        using var text = new LlavaTrainingData(Texts(), _tiny.Model.Config).Batch([1]);
        Assert.Equal(text.TokenIds.data<long>(), mixed.TokenIds.data<long>().Take(mixed.Layout.Lengths[0]));
        Assert.Equal(1, mixed.TileCount);
        Assert.Equal(mixed.Layout.Lengths, new[] { 10, 2, 13 }.Select(i => data.CountTokens(TestContext.Current.CancellationToken)[i]));
        LeakGuard.AssertFlat(3, () => data.Batch([0, 12]).Dispose());
    }

    [Fact]
    public void Another_mixture_cannot_go_on_with_the_run()
    {
        Train(Options with { SaveStrategy = SaveStrategy.Steps, SaveSteps = 2 }, null);
        using var peft = AdapterOf(_tiny);
        var other = new DatasetMixture([new("pictures", _tiny.Dataset(9), 1), new("texts", Texts(), 2)], samplesPerEpoch: 12);
        using var trainer = new LLaVATrainer(peft, new MixtureTrainingData(other, _tiny.Model.Config, 200), Options);
        var e = Assert.Throws<StateMismatchException>(() => trainer.ResumeFrom(Path.Combine(_folder, TrainingCheckpoint.NameOf(2))));
        Assert.Contains("Sampling is 4 of 9 of pictures, 8 of 5 of texts and was 8 of 9 of pictures, 4 of 5 of texts", e.Message);
    }

    [Fact]
    public void Sources_that_do_not_go_together_are_refused()
    {
        Refused("The mixture has no sources. Give it at least one data set.");
        Refused("Source number 1 has no name. Give it one, which its samples' ids then begin with.", new("a", Texts()), new(" ", Texts()));
        Refused("2 sources are called 'a'. Give each a name of its own.", new("a", Texts()), new("a", Texts()));
        var other = new LlavaDataset(Texts().Samples, new SampleEncoder(_tiny.Processor.WithTokenizer(_tiny.Tokenizer.WithModelMaxLength(99))));
        Refused("The sources 'a' and 'b' have different tokenizers. Build their processors with the same tokenizer.", new("a", Texts()), new("b", other));
        var exact = new LlavaDataset(Texts().Samples, new SampleEncoder(_tiny.Processor, null, new DataOptions { ZeroImageForTextOnly = true }));
        Refused("The sources 'a' and 'b' differ in MaskPaddingIds or ZeroImageForTextOnly, which hold for a batch as a whole. Give them the same.",
            new("a", Texts()), new("b", exact));
        var mixture = Mixture();
        Assert.StartsWith("index ('14') must be less than '14'.", Assert.Throws<ArgumentOutOfRangeException>(() => mixture.Find(14)).Message);
        Assert.Equal((mixture.Sources[0].Dataset, 8), mixture.Find(8));
        Assert.Equal((mixture.Sources[1].Dataset, 0), mixture.Find(9));
    }

    private static void Refused(string text, params MixtureSource[] sources)
        => Assert.Equal(text, Assert.Throws<TrainingDataException>(() => new DatasetMixture(sources)).Message);

    private TrainingOptions Options => new()
    {
        OutputDirectory = _folder, BatchSize = 2, AccumulationSteps = 2, Epochs = 2, SaveStrategy = SaveStrategy.None, Seed = 8, LearningRate = 0.01, MaxLength = 200,
    };

    private LlavaDataset Texts() => new(
        [.. Enumerable.Range(0, 5).Select(i => new LlavaSampleBuilder($"t{i}").User("Name a color" + new string('!', i)).Assistant("red and blue").Build(i))], new SampleEncoder(_tiny.Processor));

    private DatasetMixture Mixture() => new([new("pictures", _tiny.Dataset(9), 2), new("texts", Texts())], samplesPerEpoch: 12);

    private static PeftModel AdapterOf(TinyLlava tiny)
    {
        manual_seed(3);
        return tiny.Model.GetPeftModel(new LoraConfig { Rank = 3, Alpha = 7, Dropout = 0.1, TargetModules = (string[])["q_proj", "down_proj"] });
    }

    private (List<string> Ids, List<double> Losses) Train(TrainingOptions options, string? from)
    {
        using var tiny = TinyLlava.Create(seed: 6);
        using var peft = AdapterOf(tiny);
        var watch = new Watch();
        using var trainer = new LLaVATrainer(peft, new MixtureTrainingData(Mixture(), tiny.Model.Config, 200), options, watch);
        if (from is not null) trainer.ResumeFrom(from);
        trainer.Train(TestContext.Current.CancellationToken);
        return (watch.Ids, watch.Losses);
    }

    private sealed class Watch : ITrainingObserver
    {
        public List<string> Ids { get; } = [];

        public List<double> Losses { get; } = [];

        public TrainingVerdict OnStep(StepReport report)
        {
            Ids.AddRange(report.SampleIds.SelectMany(i => i));
            Losses.Add(report.Loss);
            return TrainingVerdict.Continue;
        }
    }

    private sealed class Same : IEqualityComparer<(List<string> Ids, List<double> Losses)>
    {
        public bool Equals((List<string> Ids, List<double> Losses) x, (List<string> Ids, List<double> Losses) y)
            => x.Ids.SequenceEqual(y.Ids) && x.Losses.SequenceEqual(y.Losses);

        public int GetHashCode((List<string> Ids, List<double> Losses) x) => x.Ids.Count;
    }
}
