using System.Globalization;
using Peft.Core;
using Peft.Llava;

namespace Peft.TrainingProbe;

/// <summary>Fills the disk beneath a CSV log and an event file, and goes on with both when there is room again.</summary>
internal static class FullDiskLogs
{
    private const int MostSteps = 1000;

    /// <summary>Prints what each log says of the full disk, and copies both to a folder elsewhere: as they are on it, and at the end.</summary>
    public static void Write(string folder, string output)
    {
        string ballast = Path.Combine(folder, "ballast");
        var csv = new CsvObserver(Path.Combine(folder, "run.csv"));
        var events = new EventFileWriter(folder);
        Log("csv", Path.Combine(folder, "run.csv"), output, ballast, step => csv.OnStep(Report(step)));
        Log("events", events.Path, output, ballast, step => events.Write(step, ("train/loss", 1.5 / step), ("train/a_tag_that_makes_the_record_longer_than_the_rest_of_a_page_may_be", step)));
        csv.Dispose();
        events.Dispose();
    }

    // What is on the disk already has a page with room, so it takes some steps until a log needs another one.
    private static void Log(string name, string path, string output, string ballast, Action<int> write)
    {
        write(1);
        FullDisk.Fill(ballast);
        int step = 2;
        try
        {
            for (; step < MostSteps; step++) write(step);
        }
        catch (FileWriteException e)
        {
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{name} {step} {e.Fault} {e.Message}"));
        }
        File.Copy(path, Path.Combine(output, $"{name}-full"));
        File.Delete(ballast);
        write(step);
        File.Copy(path, Path.Combine(output, name));
    }

    private static StepReport Report(int step) => new()
    {
        Step = step, TotalSteps = MostSteps, Epoch = step / 7.0, Loss = 1.5 / step, MicroLosses = [], SampleIds = [], GradNorm = 1.75, Clipped = false, Rates = [2e-4], NextRates = [2e-4],
        Tokens = 300, SupervisedTokens = 40, Seconds = 2, DataWaitSeconds = 0.125, ComputeSeconds = 1,
    };
}
