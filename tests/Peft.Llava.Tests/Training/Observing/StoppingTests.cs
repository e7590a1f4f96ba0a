using Peft.Core;
using Xunit;

namespace Peft.Llava.Tests.Training.Observing;

public sealed class StoppingTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("best").FullName;

    private string Best => Path.Combine(_folder, "best");

    [Fact]
    public void Training_stops_when_patience_runs_out()
    {
        var stopping = new EarlyStopping(patience: 2, window: 2, minimumImprovement: 0.1);
        double[] losses = [3, 2, 2, 2, 1.9, 1.96, 1.95, 1.9];        // means 2.5, 2, 1.93 (not better by 0.1), 1.925
        var verdicts = losses.Select((loss, i) => stopping.OnStep(Reports.Step(i + 1, loss))).ToList();
        Assert.All(verdicts[..7], v => Assert.Equal(TrainingVerdict.Continue, v));
        Assert.Equal(TrainingVerdict.Stop, verdicts[7]);
        Assert.Equal((2.0, 4, 2), (stopping.Best.Value, stopping.Best.Step, stopping.Best.Since));
    }

    [Fact]
    public void Values_of_an_evaluation_decide_where_the_window_is_off()
    {
        var stopping = new EarlyStopping(patience: 1, window: 0);
        stopping.Report(10, 0.5);
        Assert.Equal(TrainingVerdict.Continue, stopping.OnStep(Reports.Step(10, 9)));
        stopping.Report(20, double.NaN);
        Assert.Equal(TrainingVerdict.Stop, stopping.OnStep(Reports.Step(20, 1)));
    }

    [Fact]
    public void The_best_weights_are_kept_and_replaced_whole()
    {
        int saves = 0;
        var keep = new KeepBest(Best, folder => Save(folder, $"{++saves}"), window: 1);
        Directory.CreateDirectory(Best);
        File.WriteAllText(Path.Combine(Best, "stale"), "");
        foreach (double loss in (double[])[2, double.NaN, 3, 1.5, 1.5]) keep.OnStep(Reports.Step(1, loss));
        Assert.Equal(2, saves);
        Assert.Equal("2", File.ReadAllText(Path.Combine(Best, "weights")));
        Assert.Equal(["best"], Directory.EnumerateFileSystemEntries(_folder).Select(Path.GetFileName));
        Assert.Equal(["weights"], Directory.EnumerateFiles(Best).Select(Path.GetFileName));
    }

    [Fact]
    public void A_save_that_fails_leaves_the_earlier_best()
    {
        bool fails = false;
        var keep = new KeepBest(Best, folder =>
        {
            Save(folder, "whole");
            if (fails) throw new IOException("no space", 28);
        }, window: 0);
        Assert.True(keep.Report(1, 2));
        fails = true;
        var error = Assert.Throws<FileWriteException>(() => keep.Report(2, 1));
        Assert.Equal(FileWriteFault.DiskFull, error.Fault);
        Assert.Equal("whole", File.ReadAllText(Path.Combine(Best, "weights")));
        Assert.Equal((2.0, 1), (keep.Best.Value, keep.Best.Step));
        fails = false;
        Assert.True(keep.Report(3, 1.5));
    }

    [Fact]
    public void Settings_that_make_no_sense_are_refused()
    {
        Assert.Throws<ArgumentOutOfRangeException>(() => new EarlyStopping(0));
        Assert.Throws<ArgumentOutOfRangeException>(() => new EarlyStopping(1, window: -1));
        Assert.Throws<ArgumentOutOfRangeException>(() => new KeepBest(Best, _ => { }, window: -1));
    }

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    private static void Save(string folder, string content)
    {
        Directory.CreateDirectory(folder);
        File.WriteAllText(Path.Combine(folder, "weights"), content);
    }
}
