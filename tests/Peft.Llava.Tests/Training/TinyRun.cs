using Peft.Core;
using Peft.Llava;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Training;

/// <summary>A tiny model and synthetic samples of odd lengths, some without an image, for tests of the trainer itself.</summary>
internal sealed class TinyRun : ITrainingData, IDisposable
{
    private readonly TinyLlava _tiny;
    private readonly LlavaBatchBuilder _builder;

    public TinyRun(long seed = 3, int count = 7, double dropout = 0, ScalarType? dtype = null, double alpha = 7)
    {
        _tiny = TinyLlava.Create(seed, dtype);
        _builder = new LlavaBatchBuilder(_tiny.Model.Config);
        Count = count;
        manual_seed(seed);
        Peft = _tiny.Model.GetPeftModel(new LoraConfig
        {
            Rank = 3, Alpha = alpha, Dropout = dropout, TargetModules = (string[])["q_proj", "v_proj", "down_proj"], ExcludeModules = TargetModules.Regex(".*vision_tower.*"),
            BaseModel = "tiny",
        });
        Output = Directory.CreateTempSubdirectory("peft-tiny-").FullName;
        Options = new TrainingOptions
        {
            OutputDirectory = Output, LearningRate = 0.02, ProjectorLearningRate = 0.003, WeightDecay = 0.01, MaxSteps = 4, BatchSize = 2, AccumulationSteps = 2,
            SaveStrategy = SaveStrategy.None, LoggingSteps = 1, WarmupSteps = 1, Schedule = ScheduleKind.Cosine, MaxLength = 256,
        };
    }

    public LlavaModel Model => _tiny.Model;

    public PeftModel Peft { get; }

    public string Output { get; }

    public TrainingOptions Options { get; init; }

    public int Count { get; }

    public IReadOnlyList<int> ModalityLengths => [.. Enumerable.Range(0, Count).Select(i => HasImage(i) ? 5 + i : -5 - i)];

    /// <summary>Samples that have no label.</summary>
    public HashSet<int> Unsupervised { get; } = [];

    /// <summary>Samples whose pixels are not numbers.</summary>
    public HashSet<int> Broken { get; } = [];

    /// <summary>Whether preparing a batch draws from torch's generator, as augmentation would.</summary>
    public bool DrawsWhilePreparing { get; set; }

    public LlavaBatch Batch(IReadOnlyList<int> indices)
    {
        using var scope = NewDisposeScope();
        if (DrawsWhilePreparing) rand(1 + indices[0]);
        return _builder.Build([.. indices.Select(Sample)]);
    }

    private static bool HasImage(int index) => index % 3 != 1;

    private LlavaBatchSample Sample(int index)
    {
        var ids = new List<long> { 1 };
        if (HasImage(index)) ids.Add(LlavaBatchBuilder.ImagePlaceholder);
        for (int i = 0; i < 5 + 2 * index; i++) ids.Add(3 + (index * 7 + i * 5) % 90);
        var labels = ids.Select((id, i) => i < 4 || Unsupervised.Contains(index) ? LlavaBatchBuilder.IgnoredLabel : id).ToList();
        if (!HasImage(index)) return new LlavaBatchSample($"s{index}", ids, labels, []);
        var pixels = full([1, 3, 28, 28], 0.1 * (index + 1)) * arange(28).to(ScalarType.Float32) / 28;
        if (Broken.Contains(index)) pixels = pixels + double.NaN;
        return new LlavaBatchSample($"s{index}", ids, labels, [new ImageTiles(pixels, new ImageSize(28, 28))]);
    }

    public void Dispose()
    {
        Peft.Dispose();
        _tiny.Dispose();
        Directory.Delete(Output, recursive: true);
    }
}
