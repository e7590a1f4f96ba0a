using Peft.Core;
using Peft.Llava;

namespace Peft.TrainingProbe;

/// <summary>Fills the disk in the middle of a training, and goes on when there is room again.</summary>
internal static class FullDisk
{
    public static void Train(string folder, int steps, string output)
    {
        string ballast = Path.Combine(folder, "ballast");
        using (var run = new ProbeRun(folder, steps, OptimizerKind.AdamW, new Filler(ballast)))
        {
            try
            {
                run.Trainer.Train();
            }
            catch (CheckpointSaveException e)
            {
                Console.WriteLine(e.Message);
            }
            Console.WriteLine($"left {string.Join(' ', Directory.EnumerateFileSystemEntries(folder).Select(Path.GetFileName).Order(StringComparer.Ordinal))}");
            File.Delete(ballast);
            Console.WriteLine($"saved {Path.GetFileName(run.Trainer.SaveCheckpoint())}");
        }
        using var again = new ProbeRun(folder, steps, OptimizerKind.AdamW);
        Console.WriteLine($"from {again.Trainer.StepsDone}");
        again.Trainer.Train();
        again.Trainer.SaveModel(output);
    }

    /// <summary>Writes a file as long as the disk takes it.</summary>
    public static void Fill(string path)
    {
        try
        {
            using var file = new FileStream(path, FileMode.Create, FileAccess.Write, FileShare.None, bufferSize: 0);
            while (true) file.Write(new byte[4096]);
        }
        catch (IOException)
        {
            // full
        }
    }

    private sealed class Filler(string path) : ITrainingObserver
    {
        public TrainingVerdict OnStep(StepReport report)
        {
            if (report.Step == ProbeRun.SaveSteps) Fill(path);
            return TrainingVerdict.Continue;
        }
    }
}
