using System.Globalization;

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
}
