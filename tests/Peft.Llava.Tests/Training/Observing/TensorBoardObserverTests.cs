using Peft.Core;
using Xunit;

namespace Peft.Llava.Tests.Training.Observing;

public sealed class TensorBoardObserverTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("events").FullName;

    [Fact, Trait("Fault", "files-5")]
    public void The_path_is_known_after_the_run()
    {
        using var run = new TinyRun();
        using var observer = new TensorBoardObserver(Path.Combine(_folder, "runs"));
        using var trainer = new LLaVATrainer(run.Peft, run, run.Options with { MaxSteps = 2 }, observer);
        trainer.Train();
        Assert.Equal(3, EventFile.Read(observer.Path!).Count);
    }

    [Fact]
    public void Steps_come_back_from_the_event_file_with_good_checksums()
    {
        string folder = Path.Combine(_folder, "runs", "first"), path;
        using (var observer = new TensorBoardObserver(folder, new Clock()))
        {
            observer.OnStart(Reports.Start);
            path = observer.Path!;
            for (int step = 1; step <= 300; step += 299) Assert.Equal(TrainingVerdict.Continue, observer.OnStep(Reports.Step(step, 2.5 / step)));
            // Readable while the training runs: nothing waits in a buffer.
            Assert.Equal(3, EventFile.Read(path).Count);
            observer.OnEnd(Reports.Summary);
        }
        Assert.StartsWith("events.out.tfevents.1700000000.", Path.GetFileName(path));
        var events = EventFile.Read(path);
        Assert.Equal("brain.Event:2", events[0].Text(3));
        Assert.Equal([1, 3], events[0].Numbers);
        Assert.Equal(1700000000.25, events[0].Double(1));
        foreach (var (read, step) in events.Skip(1).Zip((int[])[1, 300]))
        {
            Assert.Equal(1700000000.25, read.Double(1));
            Assert.Equal(step, read.Integer(2));
            var values = read.Messages(5).Single().Messages(1).ToDictionary(v => v.Text(1), v => v.Single(2));
            Assert.Equal((float)(2.5 / step), values["train/loss"]);
            Assert.Equal((float)(1.75 * step), values["train/grad_norm"]);
            Assert.Equal((float)(2e-4 / step), values["train/learning_rate"]);
            Assert.Equal((300 + step) / 2f, values["train/tokens_per_second"]);
            Assert.Equal(40f + step, values["train/supervised_tokens"]);
            Assert.Equal(0.125f, values["train/data_wait_seconds"]);
            Assert.Equal((0f, 1f), (values["train/skipped"], values["train/loss_scale"]));
        }
    }

    [Fact]
    public void An_evaluation_has_a_record_of_its_own()
    {
        using var observer = new TensorBoardObserver(_folder, new Clock());
        observer.OnStep(Reports.Step(2, 3) with { Evaluation = Reports.Evaluation });
        var record = EventFile.Read(observer.Path!)[2];
        Assert.Equal(2, record.Integer(2));
        Assert.Equal([("eval/loss", 1.375f), ("eval/exact", 0.5f), ("eval/runtime", 3.5f)], record.Messages(5).Single().Messages(1).Select(v => (v.Text(1), v.Single(2))));
    }

    [Fact]
    public void A_loss_that_is_no_number_is_kept_as_one()
    {
        using var observer = new TensorBoardObserver(_folder, new Clock());
        observer.OnStep(Reports.Step(1, double.NaN));
        var value = EventFile.Read(observer.Path!)[1].Messages(5).Single().Messages(1).First();
        Assert.True(float.IsNaN(value.Single(2)));
    }

    [Fact]
    public void Two_runs_of_one_second_have_files_of_their_own()
    {
        using var first = new EventFileWriter(_folder, new Clock());
        using var second = new EventFileWriter(_folder, new Clock());
        Assert.NotEqual(first.Path, second.Path);
        Assert.EndsWith(".1", second.Path);
    }

    [Fact]
    public void A_folder_that_cannot_be_made_is_named()
    {
        string file = Path.Combine(_folder, "a-file");
        File.WriteAllText(file, "");
        using var observer = new TensorBoardObserver(Path.Combine(file, "runs"));
        var error = Assert.Throws<FileWriteException>(() => observer.OnStart(Reports.Start));
        Assert.Contains(Path.Combine(file, "runs"), error.Message);
    }

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    private sealed class Clock : TimeProvider
    {
        public override DateTimeOffset GetUtcNow() => DateTimeOffset.FromUnixTimeMilliseconds(1700000000250);
    }
}
