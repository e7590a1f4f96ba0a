using Peft.Core;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Training;

/// <summary>Images per sample x batch size x grouping, through data set, collator, plan and trainer.</summary>
public sealed class ImageGridTests
{
    private const int Samples = 9;

    /// <summary>-1: samples of 0, 1 and 3 images in turn.</summary>
    public static MatrixTheoryData<int, int, SampleOrdering> Grid { get; } = new(
        [0, 1, 3, -1], [1, 4], [SampleOrdering.Shuffled, SampleOrdering.ByModalityLength]);

    [Theory, MemberData(nameof(Grid))]
    public void Every_sample_is_trained_on_once_with_its_images_and_weighs_by_its_tokens(int images, int batchSize, SampleOrdering ordering)
    {
        using var tiny = TinyLlava.Create(seed: 2);
        var dataset = new LlavaDataset([.. Enumerable.Range(0, Samples).Select(i => Sample(i, images))], new SampleEncoder(tiny.Processor));
        var data = new LlavaTrainingData(dataset, tiny.Model.Config, 256);
        double[] alone = new double[Samples];
        long[] supervised = new long[Samples];
        for (int i = 0; i < Samples; i++)
        {
            using var scope = NewDisposeScope();
            using var noGrad = no_grad();
            using var batch = data.Batch([i]);
            Assert.Equal(ImagesOf(i, images), batch.TileCount);
            var (sum, count) = tiny.Model.LossSum(batch);
            (alone[i], supervised[i]) = (sum.item<float>(), count);
        }
        Assert.Equal(ImagesOf(0, images) > 0 || ImagesOf(1, images) > 0, data.ModalityLengths.Any(l => l > 0));

        string output = Directory.CreateTempSubdirectory("grid").FullName;
        try
        {
            manual_seed(7);
            using var peft = tiny.Model.GetPeftModel(new LoraConfig { Rank = 3, Alpha = 7, TargetModules = (string[])["q_proj", "down_proj"] });
            var watch = new Watch();
            // With a rate this small the weights stay what they were, so every step's loss is that of its samples alone.
            using var trainer = new LLaVATrainer(peft, data, new TrainingOptions
            {
                OutputDirectory = output, BatchSize = batchSize, Epochs = 1, Ordering = ordering, LearningRate = 1e-30, SaveStrategy = SaveStrategy.None, Seed = 6, MaxLength = 256, DataWorkers = 2,
            }, watch);
            trainer.Train(TestContext.Current.CancellationToken);
            int[][] batches = [.. watch.Reports.Select(r => r.SampleIds.SelectMany(ids => ids.Select(id => int.Parse(id[1..]))).ToArray())];
            Assert.Equal(Enumerable.Range(0, Samples), batches.SelectMany(b => b).Order());
            Assert.All(batches.SkipLast(1), b => Assert.Equal(batchSize, b.Length));
            foreach (var (report, batch) in watch.Reports.Zip(batches))
            {
                Assert.Equal(batch.Sum(i => supervised[i]), report.SupervisedTokens);
                Assert.Equal(batch.Sum(i => alone[i]) / batch.Sum(i => supervised[i]), report.Loss, 1e-5);
            }
            if (ordering == SampleOrdering.ByModalityLength && images == -1)
                Assert.All(batches.Take(Samples / batchSize - 1), b => Assert.Single(b.Select(i => ImagesOf(i, images) > 0).Distinct()));
        }
        finally
        {
            Directory.Delete(output, recursive: true);
        }
    }

    private static int ImagesOf(int sample, int images) => images >= 0 ? images : (sample % 3) switch { 0 => 0, 1 => 1, _ => 3 };

    private static LlavaSample Sample(int index, int images)
        => new LlavaSampleBuilder($"s{index}")
            .User("Name a color" + new string('?', index), [.. Enumerable.Range(0, ImagesOf(index, images)).Select(i => $"tiny-{index + i}-red.png")])
            .Assistant("red and blue"[..(3 + index % 4)]).Build(index);

    private sealed class Watch : ITrainingObserver
    {
        public List<StepReport> Reports { get; } = [];

        public TrainingVerdict OnStep(StepReport report)
        {
            Reports.Add(report);
            return TrainingVerdict.Continue;
        }
    }
}
