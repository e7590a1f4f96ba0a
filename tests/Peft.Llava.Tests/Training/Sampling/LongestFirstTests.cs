using System.Text.Json.Nodes;
using Peft.Core;
using Xunit;

namespace Peft.Llava.Tests.Training;

public sealed class LongestFirstTests
{
    [Fact]
    public void The_longest_batch_and_the_first_change_places()
    {
        int[] tokens = [5, 9, 4, 8, 7, 1, 6];
        Assert.Equal([[3, 4], [2, 5], [0, 1], [6]], LongestFirst.Swap([[0, 1], [2, 5], [3, 4], [6]], tokens));
        // Of equal ones the first; a batch that is not full may be the longest, too.
        Assert.Equal([[0, 1], [2, 5], [1, 0], [6]], LongestFirst.Swap([[0, 1], [2, 5], [1, 0], [6]], tokens));
        Assert.Equal([[1], [2, 5]], LongestFirst.Swap([[2, 5], [1]], tokens));
        Assert.Empty(LongestFirst.Swap([], tokens));
    }

    [Theory]
    [InlineData(SampleOrdering.Shuffled, 1)]
    [InlineData(SampleOrdering.Shuffled, 3)]
    [InlineData(SampleOrdering.ByModalityLength, 2)]
    public void The_order_changes_by_one_exchange_in_the_first_epoch_alone(SampleOrdering ordering, int accumulation)
    {
        using var run = new TinyRun(count: 23);
        var options = run.Options with { Ordering = ordering, BatchSize = 2, AccumulationSteps = accumulation, MaxSteps = 0, Epochs = 2, MaxLength = 256 };
        var plain = new StepPlan(options, run).Steps().SelectMany(s => s.MicroBatches).ToList();
        var swapped = new StepPlan(options with { LongestBatchFirst = true }, run).Steps().SelectMany(s => s.MicroBatches).ToList();
        int Tokens(int[] batch) => batch.Sum(i => Math.Abs(run.ModalityLengths[i]));
        int longest = plain.Take(12).Max(Tokens);
        Assert.True(Tokens(plain[0]) < longest, "The order begins with the longest batch anyway: the test needs another seed.");
        Assert.Equal(longest, Tokens(swapped[0]));
        var different = Enumerable.Range(0, plain.Count).Where(i => !plain[i].SequenceEqual(swapped[i])).ToList();
        Assert.Equal(2, different.Count);
        Assert.Equal(plain[0], swapped[different[1]]);
        Assert.Equal(plain[different[1]], swapped[0]);
        Assert.All(different, i => Assert.InRange(i, 0, 11));
    }

    [Fact]
    public void Lengths_above_the_limit_count_as_the_limit()
    {
        using var run = new TinyRun(count: 9);
        // Of 5 to 13 words all are cut to 4, so every full batch is as long as the first.
        var options = run.Options with { BatchSize = 2, AccumulationSteps = 1, MaxSteps = 0, Epochs = 1, MaxLength = 4 };
        Assert.Equal(new StepPlan(options, run).Steps().SelectMany(s => s.MicroBatches), new StepPlan(options with { LongestBatchFirst = true }, run).Steps().SelectMany(s => s.MicroBatches));
    }

    [Fact]
    public void Tokens_are_counted_as_the_model_gets_them()
    {
        using var tiny = TinyLlava.Create();
        LlavaSample[] samples =
        [
            .. TinyLlava.Samples(3),
            new LlavaSampleBuilder("text").User("Name a color " + new string('?', 60)).Assistant("red").Build(3),
            new LlavaSampleBuilder("two").User("<image> or <image>?", "tiny-1-green.png", "tiny-2-blue.png").Assistant("the one").Build(4),
            new LlavaSampleBuilder("long").User("Name a color " + new string('x', 300)).Assistant("red").Build(5),
        ];
        var data = new LlavaTrainingData(new LlavaDataset(samples, new SampleEncoder(tiny.Processor, null, new DataOptions { Unsupervised = UnsupervisedPolicy.Keep })), tiny.Model.Config, 120);
        using var batch = data.Batch([0, 1, 2, 3, 4, 5]);
        Assert.Equal(batch.Layout.Lengths, data.CountTokens(TestContext.Current.CancellationToken));
        Assert.Equal(120, batch.Layout.Lengths[5]);
        Assert.Throws<OperationCanceledException>(() => data.CountTokens(new CancellationToken(canceled: true)));
    }

    [Fact]
    public void Tiles_of_any_resolution_are_counted_by_the_picture()
    {
        using var tiny = TinyLlava.Create();
        ImageSize[] grids = [new(56, 28), new(28, 56), new(84, 28)];
        var points = new JsonArray([.. grids.Select(g => (JsonNode)new JsonArray(g.Width, g.Height))]);
        var config = tiny.Model.Config.With("image_aspect_ratio", "anyres").With("mm_patch_merge_type", "spatial_unpad").With("image_grid_pinpoints", points);
        var processor = new LlavaProcessor(tiny.Tokenizer.WithModelMaxLength(null),
            new ClipImageProcessor(ImageProcessorConfig.Clip(28), AspectPolicy.AnyResolution, grids), readImage: path => Path.GetFileName(path) switch
            {
                "wide.png" => new RgbImage(90, 31),
                "gone.png" => throw new FileNotFoundException(),
                var name => new RgbImage(20, 47 + name.Length),
            });
        LlavaSample[] samples =
        [
            new LlavaSampleBuilder("a").User("What?", "wide.png").Assistant("red").Build(0),
            new LlavaSampleBuilder("b").User("What?", "tall.png", "wide.png").Assistant("red").Build(1),
            new LlavaSampleBuilder("c").User("What?", "gone.png").Assistant("red").Build(2),
        ];
        var encoder = new SampleEncoder(processor, null, new DataOptions { BadImages = BadImagePolicy.Blank });
        var data = new LlavaTrainingData(new LlavaDataset(samples, encoder), config, 2000);
        using var batch = data.Batch([0, 1, 2]);
        Assert.Equal(batch.Layout.Lengths, data.CountTokens(TestContext.Current.CancellationToken));
        Assert.Equal(3, batch.Layout.Lengths.Distinct().Count());
    }

    [Fact]
    public void A_sample_that_cannot_be_trained_on_is_named_before_the_first_step()
    {
        using var tiny = TinyLlava.Create();
        LlavaSample[] samples = [.. TinyLlava.Samples(4), new LlavaSample(4, "mute", [], [new("human", "Hm?")])];
        using var peft = tiny.Model.GetPeftModel(new LoraConfig { Rank = 3, Alpha = 7, TargetModules = (string[])["q_proj"] });
        string output = Directory.CreateTempSubdirectory("longest").FullName;
        try
        {
            using var trainer = new LLaVATrainer(peft, new LlavaDataset(samples, new SampleEncoder(tiny.Processor)),
                new TrainingOptions { OutputDirectory = output, BatchSize = 1, LongestBatchFirst = true, SaveStrategy = SaveStrategy.None });
            var e = Assert.Throws<SampleException>(() => trainer.Train(TestContext.Current.CancellationToken));
            Assert.Equal("Sample 'mute' (record 4): none of its 135 tokens is supervised with the template 'vicuna_v1': no turn of 'gpt' holds text. Correct or remove it, choose the model's "
                + "template, or keep such samples (DataOptions.Unsupervised).", e.Message);
            Assert.Equal("mute", e.SampleId);
            Assert.Equal(0, trainer.StepsDone);
        }
        finally
        {
            Directory.Delete(output, recursive: true);
        }
    }

    [Fact]
    public void A_resumed_run_goes_on_in_the_same_order()
    {
        using var whole = new TinyRun(dropout: 0.2, count: 11);
        var options = whole.Options with { LongestBatchFirst = true, MaxSteps = 5, SaveStrategy = SaveStrategy.Steps, SaveSteps = 1, DataWorkers = 2 };
        var all = Run(whole, options, null);
        foreach (int from in new[] { 1, 2, 4 })
        {
            using var again = new TinyRun(dropout: 0.2, count: 11);
            Assert.Equal(all.Skip(from), Run(again, options with { OutputDirectory = again.Output }, Path.Combine(whole.Output, TrainingCheckpoint.NameOf(from))));
        }
        using var other = new TinyRun(count: 11);
        using var trainer = new LLaVATrainer(other.Peft, other, options with { LongestBatchFirst = false });
        var e = Assert.Throws<StateMismatchException>(() => trainer.ResumeFrom(Path.Combine(whole.Output, TrainingCheckpoint.NameOf(1))));
        Assert.Contains("LongestBatchFirst is False and was True", e.Message);
    }

    private static List<string> Run(TinyRun run, TrainingOptions options, string? from)
    {
        var lines = new Lines();
        using var trainer = new LLaVATrainer(run.Peft, run, options, lines);
        if (from is not null) trainer.ResumeFrom(from);
        trainer.Train(TestContext.Current.CancellationToken);
        return lines.Values;
    }

    private sealed class Lines : ITrainingObserver
    {
        public List<string> Values { get; } = [];

        public TrainingVerdict OnStep(StepReport report)
        {
            Values.Add($"{report.Step} {report.Loss:R} {string.Join(" ", report.SampleIds.Select(b => string.Join(",", b)))}");
            return TrainingVerdict.Continue;
        }
    }
}
