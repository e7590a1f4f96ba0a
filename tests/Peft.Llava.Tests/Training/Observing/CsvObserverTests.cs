using Peft.Core;
using Xunit;

namespace Peft.Llava.Tests.Training.Observing;

public sealed class CsvObserverTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("csv").FullName;

    private string File1 => Path.Combine(_folder, "logs", "run.csv");

    [Fact]
    public void Each_step_is_a_line_and_a_resumed_run_goes_on()
    {
        using (var observer = new CsvObserver(File1))
        {
            observer.OnStart(Reports.Start);
            observer.OnStep(Reports.Step(1, 1 / 3.0));
            Assert.Equal(2, File.ReadAllLines(File1).Length);
            observer.OnEnd(Reports.Summary);
        }
        using (var resumed = new CsvObserver(File1))
        {
            resumed.OnStart(Reports.Start);
            resumed.OnStep(Reports.Step(2, double.NaN) with { Skipped = true, LossScale = 32768, Evaluation = Reports.Evaluation });
        }
        string[] lines = File.ReadAllLines(File1);
        Assert.Equal(CsvObserver.Header, lines[0]);
        Assert.Equal("1,0.14285714285714285,0.3333333333333333,1.75,0,0.0002,301,41,2,0.125,0,1,,", lines[1]);
        Assert.Equal("2,0.2857142857142857,NaN,3.5,1,0.0001,302,42,2,0.125,1,32768,1.375,0.5", lines[2]);
        Assert.Equal(3, lines.Length);
    }

    [Fact]
    public void A_file_that_is_something_else_is_not_written_into()
    {
        string path = Path.Combine(_folder, "notes.csv");
        File.WriteAllText(path, "name,score\nx,1\n");
        using var observer = new CsvObserver(path);
        var error = Assert.Throws<LogFileException>(() => observer.OnStart(Reports.Start));
        Assert.Equal($"{path} cannot be continued: its first line is 'name,score', not that of a training log ('{CsvObserver.Header}'). "
            + "Name another file, or move this one away.", error.Message);
        Assert.Equal(path, error.Path);
        Assert.Equal("name,score\nx,1\n", File.ReadAllText(path));
    }

    [Fact]
    public void A_place_that_cannot_be_written_is_named()
    {
        string blocker = Path.Combine(_folder, "blocker");
        File.WriteAllText(blocker, "");
        using var observer = new CsvObserver(Path.Combine(blocker, "run.csv"));
        var error = Assert.Throws<FileWriteException>(() => observer.OnStep(Reports.Step(1, 1)));
        Assert.Contains("run.csv could not be written", error.Message);
    }

    public void Dispose() => Directory.Delete(_folder, recursive: true);
}
