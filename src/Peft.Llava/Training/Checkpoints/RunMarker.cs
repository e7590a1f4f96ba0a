using System.Text.Json;
using System.Text.Json.Nodes;
using Peft.Core;

namespace Peft.Llava;

/// <summary>
/// Which run an output folder belongs to: <c>training_run.json</c>, written before the run's first step, so that the checkpoints of an earlier run are
/// not taken for its own even if it ends before it has one.
/// </summary>
internal static class RunMarker
{
    public const string FileName = "training_run.json";

    /// <summary>The folder's run, or null where no run has left its id (a library without ids, or checkpoints that were copied there).</summary>
    /// <exception cref="CheckpointException">The file is damaged.</exception>
    public static string? Read(string outputDirectory)
    {
        string path = Path.Combine(outputDirectory, FileName);
        if (!File.Exists(path)) return null;
        try
        {
            return (string?)JsonNode.Parse(File.ReadAllBytes(path))?[nameof(TrainingState.Run)];
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException or FormatException)
        {
            throw new CheckpointException(outputDirectory, $"its {FileName} is damaged ({e.Message.TrimEnd('.')})",
                "Remove the file and name the checkpoint to resume from.", e);
        }
    }

    /// <summary>Says that the folder is a run's from now on.</summary>
    /// <exception cref="FileWriteException">The operating system refused.</exception>
    public static void Write(string outputDirectory, string run)
        => AtomicFile.WriteText(Path.Combine(outputDirectory, FileName), PythonJson.Write(new JsonObject { [nameof(TrainingState.Run)] = run }) + "\n");
}
