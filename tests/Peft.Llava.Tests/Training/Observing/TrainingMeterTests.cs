using System.Diagnostics.Metrics;
using Xunit;

namespace Peft.Llava.Tests.Training.Observing;

public sealed class TrainingMeterTests
{
    [Fact]
    public void A_listener_gets_every_measurement_with_its_tags()
    {
        string run = Guid.NewGuid().ToString();
        var seen = new List<(string Name, double Value, string? Group)>();
        using var listener = new MeterListener
        {
            InstrumentPublished = (instrument, l) =>
            {
                if (instrument.Meter.Name == TrainingMeter.MeterName) l.EnableMeasurementEvents(instrument);
            },
        };
        void Note(Instrument instrument, double value, ReadOnlySpan<KeyValuePair<string, object?>> tags)
        {
            var all = tags.ToArray().ToDictionary();
            if (all.GetValueOrDefault("run") as string == run) seen.Add((instrument.Name, value, (all.GetValueOrDefault("group") ?? all.GetValueOrDefault("metric")) as string));
        }
        listener.SetMeasurementEventCallback<long>((i, v, t, _) => Note(i, v, t));
        listener.SetMeasurementEventCallback<double>((i, v, t, _) => Note(i, v, t));
        listener.Start();
        using (var meter = new TrainingMeter(run))
        {
            meter.OnStart(Reports.Start);
            Assert.Equal(TrainingVerdict.Continue, meter.OnStep(Reports.Step(1, 2.5)));
            meter.OnStep(Reports.Step(2, 1.25) with { Skipped = true, LossScale = 4096, Evaluation = Reports.Evaluation });
        }
        Assert.Equal(2, seen.Where(s => s.Name == "peft.training.steps").Sum(s => s.Value));
        Assert.Equal(603, seen.Where(s => s.Name == "peft.training.tokens").Sum(s => s.Value));
        Assert.Equal(83, seen.Where(s => s.Name == "peft.training.supervised_tokens").Sum(s => s.Value));
        Assert.Equal(1, seen.Count(s => s.Name == "peft.training.clipped_steps"));
        Assert.Equal(1, seen.Where(s => s.Name == "peft.training.skipped_steps").Sum(s => s.Value));
        Assert.Equal([("eval_loss", 1.375), ("eval_exact", 0.5)], seen.Where(s => s.Name == "peft.training.evaluation").Select(s => (s.Group, s.Value)));
        Assert.Equal([1, 4096], seen.Where(s => s.Name == "peft.training.loss_scale").Select(s => s.Value));
        Assert.Equal([2.5, 1.25], seen.Where(s => s.Name == "peft.training.loss").Select(s => s.Value));
        Assert.Equal([2.0, 2.0], seen.Where(s => s.Name == "peft.training.step.duration").Select(s => s.Value));
        Assert.Equal([0.125, 0.125], seen.Where(s => s.Name == "peft.training.data_wait.duration").Select(s => s.Value));
        Assert.Equal([("adapter", 2e-4), ("projector", 2e-5), ("adapter", 1e-4), ("projector", 1e-5)],
            seen.Where(s => s.Name == "peft.training.learning_rate").Select(s => (s.Group, s.Value)));
    }

    [Fact]
    public void A_host_can_make_the_meter()
    {
        using var factory = new Factory();
        using var meter = new TrainingMeter(factory: factory);
        Assert.Equal([TrainingMeter.MeterName], factory.Made);
    }

    private sealed class Factory : IMeterFactory
    {
        public List<string> Made { get; } = [];

        public Meter Create(MeterOptions options)
        {
            Made.Add(options.Name);
            return new Meter(options);
        }

        public void Dispose()
        {
        }
    }
}
