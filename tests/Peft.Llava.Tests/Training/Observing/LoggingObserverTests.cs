using Microsoft.Extensions.Logging;
using Peft.Core;
using Peft.Testing;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Training.Observing;

public sealed class LoggingObserverTests
{
    [Fact]
    public void Steps_become_structured_entries()
    {
        var log = new Collector();
        var observer = new LoggingObserver(log, every: 2);
        observer.OnStart(Reports.Start);
        for (int step = 1; step <= 3; step++) observer.OnStep(Reports.Step(step, 2.5 / step) with { Evaluation = step == 2 ? Reports.Evaluation : null });
        observer.OnEnd(Reports.Summary);
        Assert.Equal([1, 2, 2, 7, 2, 5], log.Entries.Select(e => e.Id.Id));
        Assert.Equal("Training begins: 3 steps over 14 samples, 0 trained elements, 1 steps of warm-up", log.Entries[0].Text);
        Assert.Equal("Step 1/3 (epoch 0.143): loss 2.5000, gradient norm 1.7500, rate 0.0002, 41 supervised tokens, 150 tokens/s", log.Entries[1].Text);
        Assert.Equal(2.5, log.Entries[1].Fields["Loss"]);
        Assert.Equal(3, log.Entries[4].Fields["Step"]);
        Assert.Equal("Training done after 3 steps (0.429 epochs): mean loss 1.5000, 900 tokens in 6.2 s", log.Entries[5].Text);
        Assert.Equal("Evaluation after step 2: eval_loss 1.375, eval_exact 0.5; the deciding value 0.5 is the best so far; 3.5 s", log.Entries[3].Text);
    }

    [Fact]
    public void A_loss_that_is_no_number_and_waiting_for_data_are_warnings()
    {
        var log = new Collector();
        var observer = new LoggingObserver(log, every: 100);
        observer.OnStep(Reports.Step(1, 1, wait: 1.9));
        observer.OnStep(Reports.Step(2, double.NaN, wait: 0.5));
        observer.OnStep(Reports.Step(2, 1, wait: 0.5));
        observer.OnStep(Reports.Step(2, 1) with { Skipped = true, LossScale = 32768 });
        var warnings = log.Entries.Where(e => e.Level == LogLevel.Warning).Select(e => e.Text);
        Assert.Equal(["Step 2: the loss is NaN; samples sample-2",
            "Step 2 waited 0.50 s of its 2.00 s for data: raise DataWorkers. Later steps that wait are not reported",
            "Step 2 was skipped: a gradient overflowed in float16 under a loss scale of 32768. The scale falls; a few of these at the start are normal"], warnings);
    }

    [Theory]
    [InlineData(ScalarType.BFloat16, CpuLevel.Vector128,
        "The model is in bfloat16, for which this processor has no instructions (level vector128), and products run on Libtorch: load it as Float32")]
    [InlineData(ScalarType.Float16, CpuLevel.Vector128, "The model is in float16, whose products are slow on every CPU (level vector128): load it as Float32")]
    [InlineData(ScalarType.Float16, CpuLevel.Avx2,
        "The model is in float16, whose products are slow on every CPU (level avx2): load it as BFloat16 (as fast as Float32 or faster, in half the memory)")]
    [InlineData(ScalarType.BFloat16, CpuLevel.Avx2, null)]
    [InlineData(ScalarType.Float32, CpuLevel.Vector128, null)]
    public void A_dtype_that_costs_speed_on_this_processor_is_one_warning_at_the_start(ScalarType dtype, CpuLevel level, string? text)
    {
        if (!CpuLevels.Supported.Contains(level)) return;
        using var forced = CpuLevels.Force(level);
        using var folder = new TemporaryFolder();
        using var tiny = TinyLlava.Create(3, dtype);
        using var peft = tiny.Model.GetPeftModel(new LoraConfig { Rank = 2, Alpha = 3, TargetModules = ["q_proj"] });
        using var trainer = new LLaVATrainer(peft, tiny.Dataset(4), new TrainingOptions
        {
            OutputDirectory = folder.Path, BatchSize = 2, MaxSteps = 1, SaveStrategy = SaveStrategy.None, Trainable = TrainableParts.Lora(projector: false),
            Precision = dtype switch { ScalarType.BFloat16 => TrainingPrecision.BFloat16, ScalarType.Float16 => TrainingPrecision.Float16, _ => TrainingPrecision.Float32 },
        });
        var log = new Collector();
        new LoggingObserver(log).OnStart(Reports.Start with { Trainer = trainer });
        Assert.Equal(text is null ? [] : [text], log.Entries.Where(e => e.Level == LogLevel.Warning).Select(e => e.Text));
    }

    private sealed class Collector : ILogger
    {
        public List<(LogLevel Level, EventId Id, string Text, Dictionary<string, object?> Fields)> Entries { get; } = [];

        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => true;

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
            => Entries.Add((logLevel, eventId, formatter(state, exception), ((IEnumerable<KeyValuePair<string, object?>>)state!).ToDictionary()));
    }
}
