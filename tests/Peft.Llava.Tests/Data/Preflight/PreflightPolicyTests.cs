using System.Text.Json;
using Microsoft.Extensions.Logging;
using Peft.Core;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Data;

public sealed class PreflightPolicyTests : IDisposable
{
    private readonly TinyLlava _tiny = TinyLlava.Create(seed: 4);
    private readonly string _folder = Directory.CreateTempSubdirectory("policy").FullName;

    public void Dispose()
    {
        _tiny.Dispose();
        Directory.Delete(_folder, recursive: true);
    }

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public void Fail_names_the_samples_and_nothing_is_made()
    {
        var (dataset, report) = WithFaults();
        var e = Assert.Throws<PreflightException>(() => dataset.Apply(report, PreflightPolicy.Fail));
        Assert.StartsWith("2 of 7 samples cannot be trained on. Correct them, leave them out with PreflightPolicy.Skip, or take blank pictures with "
            + $"PreflightPolicy.Blank.\n  MissingImage: Sample 'gone' (record 2): its image '{Path.Combine(_folder, "gone.png")}' is not there.", e.Message);
        Assert.Equal(2, e.Findings.Count);

        LlavaSample[] many = [.. Enumerable.Range(0, 12).Select(i => new LlavaSampleBuilder($"m{i}").User("What?", "gone.png").Assistant("red").Build(i))];
        dataset = new LlavaDataset(many, new SampleEncoder(_tiny.Processor, _folder));
        e = Assert.Throws<PreflightException>(() => dataset.Apply(dataset.Preflight(null, null, Token), PreflightPolicy.Fail));
        Assert.EndsWith("\n  … and 2 more", e.Message);
    }

    [Fact]
    public void Skip_trains_on_the_rest_in_the_order_drawn_for_it()
    {
        var (dataset, report) = WithFaults();
        var usable = dataset.Apply(report, PreflightPolicy.Skip);
        Assert.Equal(["tiny-0", "tiny-1", "tiny-2", "tiny-3", "tiny-4"], usable.Samples.Select(s => s.Id));
        Assert.Equal(Ids(_tiny.Dataset(5)), Ids(usable));
    }

    [Fact]
    public void Blank_keeps_number_and_order_and_shows_black_pictures()
    {
        var (dataset, report) = WithFaults();
        var mended = dataset.Apply(report, PreflightPolicy.Blank);
        Assert.Equal(7, mended.Count);
        Assert.Equal(7, Ids(mended).Distinct().Count());
        using var gone = mended.Encode(2);
        using var scope = NewDisposeScope();
        var images = _tiny.Processor.Images!;
        Assert.True(gone.Images[0].Pixels.equal(images.ToTensor(new RgbImage(images.TileSize, images.TileSize))).all().ToBoolean());
        using var good = mended.Encode(0);
        Assert.False(good.Images[0].Pixels.equal(gone.Images[0].Pixels).all().ToBoolean());
    }

    [Fact]
    public void Blank_mends_no_text()
    {
        LlavaSample[] samples = [.. TinyLlava.Samples(2), new LlavaSample(2, "mute", [], [new("human", "What?")]), new LlavaSampleBuilder("gone").User("What?", "x.png").Assistant("red").Build(3)];
        var dataset = new LlavaDataset(samples, new SampleEncoder(_tiny.Processor, _folder));
        var e = Assert.Throws<PreflightException>(() => dataset.Apply(dataset.Preflight(null, null, Token), PreflightPolicy.Blank));
        Assert.StartsWith("1 of 4 samples cannot be trained on. A blank picture mends images alone: correct these, or leave them out with PreflightPolicy.Skip."
            + "\n  NothingSupervised: Sample 'mute'", e.Message);
    }

    [Fact]
    public void Nothing_left_is_refused_and_warnings_change_nothing()
    {
        var dataset = new LlavaDataset([new LlavaSample(0, "mute", [], [new("human", "What?")])], new SampleEncoder(_tiny.Processor));
        var e = Assert.Throws<PreflightException>(() => dataset.Apply(dataset.Preflight(null, null, Token), PreflightPolicy.Skip));
        Assert.StartsWith("1 of 1 samples cannot be trained on. Nothing would be left: check the image folder, the template and the length limit.", e.Message);

        var sound = _tiny.Dataset(3);
        var cut = sound.Preflight(new PreflightOptions { MaxLength = sound.Preflight(null, null, Token).LongestSample - 1 }, null, Token);
        Assert.All(cut.Findings, f => Assert.Equal(PreflightCategory.TooLong, f.Category));
        Assert.NotEmpty(cut.Findings);
        foreach (var policy in Enum.GetValues<PreflightPolicy>()) Assert.Same(sound, sound.Apply(cut, policy));
        var other = Assert.Throws<ArgumentException>(() => _tiny.Dataset(4).Apply(cut, PreflightPolicy.Skip));
        Assert.Contains("The report is of 3 samples, the data set has 4; examine this data set.", other.Message);
    }

    [Fact]
    public void The_report_prints_and_is_JSON()
    {
        var (_, report) = WithFaults();
        string gone = Path.Combine(_folder, "gone.png"), empty = Path.Combine(_folder, "empty.png");
        string missing = $"Sample 'gone' (record 2): its image '{gone}' is not there. Check the image folder, or remove the sample.";
        string zero = $"Sample 'empty' (record 5): its image '{empty}' cannot be used: {empty}: The file is empty. Fetch or export the file again, or leave out the sample. "
            + "Replace the file, or remove the sample.";
        Assert.Equal($"7 samples, 5 usable: {report.Tokens} tokens, {report.SupervisedTokens} supervised, longest {report.LongestSample}"
            + $"\n  error    MissingImage: 1, the first: {missing}\n  error    ZeroSizeImage: 1, the first: {zero}", report.ToString());

        using var json = JsonDocument.Parse(report.ToJson());
        var root = json.RootElement;
        Assert.Equal((7, 5, report.Tokens), (root.GetProperty("samples").GetInt32(), root.GetProperty("usable").GetInt32(), root.GetProperty("tokens").GetInt64()));
        Assert.Equal("""{"missing_image":1,"zero_size_image":1}""", JsonSerializer.Serialize(root.GetProperty("counts")));
        var finding = root.GetProperty("findings")[1];
        Assert.Equal((5, "empty", "zero_size_image", "error", zero, empty), (finding.GetProperty("place").GetInt32(), finding.GetProperty("id").GetString(),
            finding.GetProperty("category").GetString(), finding.GetProperty("severity").GetString(), finding.GetProperty("message").GetString(), finding.GetProperty("file").GetString()));
    }

    [Fact]
    public void The_log_says_what_is_done_and_how_often()
    {
        var (_, report) = WithFaults();
        foreach (var (policy, outcome) in new[] { (PreflightPolicy.Skip, "2 are left out"), (PreflightPolicy.Blank, "2 get blank pictures"), (PreflightPolicy.Fail, "2 stop the run") })
        {
            var lines = new Lines();
            report.Log(lines, policy);
            Assert.Equal($"Information: Preflight of 7 samples: {outcome}; {report.Tokens} tokens, {report.SupervisedTokens} supervised, "
                + $"the longest sample has {report.LongestSample}", lines.Written[0]);
            Assert.StartsWith("Warning: Preflight found MissingImage in 1 samples; the first: Sample 'gone'", lines.Written[1]);
            Assert.Equal(3, lines.Written.Count);
        }
        var clean = new Lines();
        _tiny.Dataset(2).Preflight(null, null, Token).Log(clean, PreflightPolicy.Fail);
        Assert.Contains("all are used", Assert.Single(clean.Written));
    }

    private (LlavaDataset Dataset, PreflightReport Report) WithFaults()
    {
        File.WriteAllBytes(Path.Combine(_folder, "empty.png"), []);
        var samples = TinyLlava.Samples(5).ToList();
        samples.Insert(2, new LlavaSampleBuilder("gone").User("What?", "gone.png").Assistant("red").Build(2));
        samples.Insert(5, new LlavaSampleBuilder("empty").User("What?", "empty.png").Assistant("blue").Build(5));
        var dataset = new LlavaDataset(samples, new SampleEncoder(_tiny.Processor, _folder));
        return (dataset, dataset.Preflight(null, null, Token));
    }

    /// <summary>The samples of an epoch, in the order they were trained in.</summary>
    private List<string> Ids(LlavaDataset dataset)
    {
        using var peft = _tiny.Model.GetPeftModel(new LoraConfig { Rank = 3, Alpha = 7, TargetModules = (string[])["q_proj"] });
        var ids = new IdList();
        using (var trainer = new LLaVATrainer(peft, dataset, new TrainingOptions
        {
            OutputDirectory = _folder, BatchSize = 2, Epochs = 1, SaveStrategy = SaveStrategy.None, Seed = 11, MaxLength = 256,
        }, ids))
            trainer.Train(Token);
        peft.Unload();
        return ids.Values;
    }

    private sealed class IdList : ITrainingObserver
    {
        public List<string> Values { get; } = [];

        public TrainingVerdict OnStep(StepReport report)
        {
            Values.AddRange(report.SampleIds.SelectMany(i => i));
            return TrainingVerdict.Continue;
        }
    }

    private sealed class Lines : ILogger
    {
        public List<string> Written { get; } = [];

        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => true;

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
            => Written.Add($"{logLevel}: {formatter(state, exception)}");
    }
}
