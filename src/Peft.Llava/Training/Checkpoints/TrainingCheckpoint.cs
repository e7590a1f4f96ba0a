using System.Globalization;
using System.Text.Json;
using Peft.Core;

namespace Peft.Llava;

/// <summary>Finds the checkpoints of a run.</summary>
public static class TrainingCheckpoint
{
    private const string Prefix = "checkpoint-";

    /// <summary>The name of a step's checkpoint folder.</summary>
    /// <param name="step">The step, from 1.</param>
    public static string NameOf(int step) => Prefix + step.ToString(CultureInfo.InvariantCulture);

    /// <summary>
    /// All checkpoint folders of an output folder, by step, whichever run wrote them. Folders that were being written when a run ended have another name and are not
    /// among them.
    /// </summary>
    /// <param name="outputDirectory">The run's folder; it need not exist.</param>
    public static IReadOnlyList<(int Step, string Folder)> All(string outputDirectory)
    {
        if (!Directory.Exists(outputDirectory)) return [];
        return [.. Directory.EnumerateDirectories(outputDirectory, Prefix + "*")
            .Select(folder => (Step: int.TryParse(Path.GetFileName(folder).AsSpan(Prefix.Length), NumberStyles.None, CultureInfo.InvariantCulture, out int step) ? step : -1, folder))
            .Where(c => c.Step >= 0).OrderBy(c => c.Step)];
    }

    /// <summary>The run that wrote a checkpoint (<see cref="LLaVATrainer.RunId"/>).</summary>
    /// <param name="checkpoint">The folder.</param>
    /// <returns>Its id; null for a folder that is no checkpoint of this trainer, is damaged, or was written before runs had ids.</returns>
    public static string? RunOf(string checkpoint)
    {
        ArgumentNullException.ThrowIfNull(checkpoint);
        string path = Path.Combine(checkpoint, TrainingState.FileName);
        if (!File.Exists(path)) return null;
        try
        {
            // The id stands at the file's beginning; the log behind it may be long.
            var reader = new Utf8JsonReader(File.ReadAllBytes(path));
            while (reader.Read())
            {
                if (reader.TokenType != JsonTokenType.PropertyName || reader.CurrentDepth != 1) continue;
                bool found = reader.ValueTextEquals(nameof(TrainingState.Run));
                reader.Read();
                if (found) return reader.TokenType == JsonTokenType.String ? reader.GetString() : null;
                reader.Skip();
            }
        }
        catch (JsonException)
        {
            // Nothing is removed or resumed by what a damaged file says; ResumeFrom tells of the damage.
        }
        return null;
    }

    /// <summary>
    /// The newest checkpoint of a folder's run that it can be resumed from, or null. The run is the last one that trained into the folder; checkpoints that another run
    /// left there are not taken. In a folder that no run with an id has trained into, checkpoints without an id are one run's.
    /// </summary>
    /// <param name="outputDirectory">The run's folder; it need not exist.</param>
    /// <param name="run">The run whose checkpoints are meant, in place of the folder's last one; see <see cref="RunOf"/>.</param>
    /// <exception cref="CheckpointException">The folder does not say which run it belongs to, and holds checkpoints of several.</exception>
    public static string? Latest(string outputDirectory, string? run = null)
    {
        ArgumentNullException.ThrowIfNull(outputDirectory);
        var all = All(outputDirectory).Where(c => File.Exists(Path.Combine(c.Folder, TrainingState.FileName))).Select(c => (c.Folder, Run: RunOf(c.Folder))).ToList();
        if (all.Count == 0) return null;
        run ??= RunMarker.Read(outputDirectory);
        if (run is not null) return all.LastOrDefault(c => c.Run == run).Folder;
        var runs = all.GroupBy(c => c.Run).ToList();
        if (runs.Count > 1)
            throw new CheckpointException(outputDirectory, $"it holds checkpoints of {runs.Count} runs ({string.Join(", ", runs.Select(r => Path.GetFileName(r.Last().Folder)))}) and no {RunMarker.FileName} "
                + "that says which is meant", "Name the checkpoint to resume from.");
        return all[^1].Folder;
    }

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
