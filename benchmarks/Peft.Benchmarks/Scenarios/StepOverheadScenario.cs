using System.Diagnostics;
using Microsoft.Extensions.Logging;
using Peft.Llava;
using TorchSharp;

namespace Peft.Benchmarks;

/// <summary>
/// What of a trainer's step is neither a pass through the model nor the optimizer: picture files, tokens, collator, reports, log, CSV and event file.
/// A step is the time from one report to the next, so that whatever happens between steps counts.
/// </summary>
internal static class StepOverheadScenario
{
    private const double OverheadBar = 2, WaitBar = 5;

    /// <summary>Runs the scenario.</summary>
    public static IReadOnlyList<ResultRow> Run(string folder, BenchmarkSize size, int batch, int steps)
    {
        string work = Directory.CreateTempSubdirectory("peft-benchmark-").FullName;
        try
        {
            using var model = LlavaModel.Load(folder, new LlavaLoadOptions { Dtype = torch.ScalarType.BFloat16 });
            using var peft = TrainingScenario.Adapt(model, float32: true);
            ProcessMemory.ResetPeak();
            return [.. new[] { 1, 0 }.SelectMany(workers => Measure(peft, size, work, batch, steps, workers))];
        }
        finally
        {
            Directory.Delete(work, true);
        }
    }

    private static IEnumerable<ResultRow> Measure(Core.PeftModel peft, BenchmarkSize size, string work, int batch, int steps, int workers)
    {
        var watch = new Watch();
        using var log = new StringWriter();
        using (var csv = new CsvObserver(Path.Combine(work, $"steps-{workers}.csv")))
        using (var board = new TensorBoardObserver(Path.Combine(work, $"board-{workers}")))
        using (var trainer = new LLaVATrainer(peft, Data(size, work, batch * (steps + 1)), new TrainingOptions
        {
            OutputDirectory = work, BatchSize = batch, MaxSteps = steps + 1, LearningRate = 2e-4, SaveStrategy = SaveStrategy.None, DataWorkers = workers,
            Precision = TrainingPrecision.BFloat16, MaxLength = LengthFor(size), LoggingSteps = 1,
        }, new LoggingObserver(new TextLogger(log)), csv, board, watch))
            trainer.Train();

        // The first step is the warm-up, and its data were not prepared while anything else ran.
        var measured = watch.Steps.Skip(1).ToList();
        double Share(Func<(double Period, StepReport Report), double> part) => 100 * measured.Sum(part) / measured.Sum(s => s.Period);
        double overhead = Share(s => s.Period - s.Report.ComputeSeconds - s.Report.DataWaitSeconds), wait = Share(s => s.Report.DataWaitSeconds);
        string with = $"{workers} data worker(s)";
        double peak = ProcessMemory.PeakMegabytes;
        yield return Row($"step, {with}", s => s.Period, measured.Sum(s => s.Report.Tokens) / measured.Sum(s => s.Period), "tokens/s", "");
        yield return Row($"outside passes and optimizer, {with}", s => s.Period - s.Report.ComputeSeconds - s.Report.DataWaitSeconds, overhead, "% of the step", Bar(overhead, OverheadBar));
        yield return Row($"data wait, {with}", s => s.Report.DataWaitSeconds, wait, "% of the step", Bar(wait, WaitBar));

        ResultRow Row(string variant, Func<(double Period, StepReport Report), double> seconds, double rate, string unit, string note)
            => new(variant, TrainingScenario.Median(measured.Select(seconds)), measured.Min(seconds), rate, unit, null, peak, note);
    }

    // The text takes far less than what is left beside the pictures' tokens.
    private static int LengthFor(BenchmarkSize size) => size.Vision.Patches + 1472;

    private static string Bar(double value, double bar) => $"bar {bar} %: {(value < bar ? "met" : "missed")}";

    private static LlavaDataset Data(BenchmarkSize size, string work, int count)
    {
        for (int i = 0; i < 8; i++) File.WriteAllBytes(Path.Combine(work, $"{i}.jpg"), BenchmarkPicture.Jpeg(i));
        using var tiny = TinyLlava.Create();
        var processor = new LlavaProcessor(tiny.Tokenizer.WithModelMaxLength(LengthFor(size)), new ClipImageProcessor(ImageProcessorConfig.Clip(size.Vision.Image), AspectPolicy.Pad));
        var samples = Enumerable.Range(0, count).Select(i => new LlavaSampleBuilder($"{i}")
            .User("What is in it?", $"{i % 8}.jpg").Assistant(string.Join(' ', Enumerable.Range(0, 40 + i % 5).Select(w => $"w{(i * 7 + w) % 50}"))).Build(i));
        return new LlavaDataset([.. samples], new SampleEncoder(processor, work));
    }

    private sealed class Watch : ITrainingObserver
    {
        private long _last;

        public List<(double Period, StepReport Report)> Steps { get; } = [];

        public void OnStart(TrainingStart start) => _last = Stopwatch.GetTimestamp();

        public TrainingVerdict OnStep(StepReport report)
        {
            long now = Stopwatch.GetTimestamp();
            Steps.Add((Stopwatch.GetElapsedTime(_last, now).TotalSeconds, report));
            _last = now;
            return TrainingVerdict.Continue;
        }
    }

    private sealed class TextLogger(TextWriter writer) : ILogger
    {
        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => true;

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
            => writer.WriteLine(formatter(state, exception));
    }
}
