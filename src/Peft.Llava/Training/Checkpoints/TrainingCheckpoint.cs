using System.Globalization;
using Peft.Core;

namespace Peft.Llava;

/// <summary>Finds the checkpoints of a run.</summary>
public static class TrainingCheckpoint
{
    private const string Prefix = "checkpoint-";

    /// <summary>The name of a step's checkpoint folder.</summary>
    /// <param name="step">The step, from 1.</param>
    public static string NameOf(int step) => Prefix + step.ToString(CultureInfo.InvariantCulture);

    /// <summary>All checkpoint folders of a run, by step. Folders that were being written when the run ended have another name and are not among them.</summary>
    /// <param name="outputDirectory">The run's folder; it need not exist.</param>
    public static IReadOnlyList<(int Step, string Folder)> All(string outputDirectory)
    {
        if (!Directory.Exists(outputDirectory)) return [];
        return [.. Directory.EnumerateDirectories(outputDirectory, Prefix + "*")
            .Select(folder => (Step: int.TryParse(Path.GetFileName(folder).AsSpan(Prefix.Length), NumberStyles.None, CultureInfo.InvariantCulture, out int step) ? step : -1, folder))
            .Where(c => c.Step >= 0).OrderBy(c => c.Step)];
    }

    /// <summary>The newest checkpoint that a run can be resumed from, or null.</summary>
    /// <param name="outputDirectory">The run's folder; it need not exist.</param>
    public static string? Latest(string outputDirectory)
        => All(outputDirectory).LastOrDefault(c => File.Exists(Path.Combine(c.Folder, TrainingState.FileName))).Folder;

    /// <summary>
    /// Removes what a killed run left: files and folders it was writing or removing. A training does this when it begins. A checkpoint that was set aside for a
    /// newer one of the same step, which then never took its place, gets its name back.
    /// </summary>
    /// <param name="outputDirectory">The run's folder; it need not exist. No other process may be training into it.</param>
    /// <exception cref="FileWriteException">The operating system refused.</exception>
    public static void Sweep(string outputDirectory)
    {
        AtomicFolder.Sweep(outputDirectory, Prefix);
        AtomicFile.Sweep(outputDirectory);
    }
}
