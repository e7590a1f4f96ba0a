using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using Peft.Core;

namespace Peft.Llava;

/// <summary>What of a run is neither weights nor moments: where it stands, and what it must find again to go on. <c>training_state.json</c>.</summary>
internal sealed record TrainingState
{
    public const string FileName = "training_state.json";

    public const string OptimizerFileName = "optimizer.safetensors";

    /// <summary>The gradient scaler's state, under transformers' name; in float16 only.</summary>
    public const string ScalerFileName = "scaler.pt";

    private const int CurrentVersion = 3;

    // The version before: no run's id, and fewer rules.
    private const int VersionWithoutRun = 2;

    private static readonly JsonSerializerOptions Json = new()
    {
        WriteIndented = true,
        NumberHandling = JsonNumberHandling.AllowNamedFloatingPointLiterals,      // a metric may be no number
    };

    /// <summary>The form of this file.</summary>
    public int Version { get; init; } = CurrentVersion;

    /// <summary>The run that wrote it; null in a file of version 2.</summary>
    public string? Run { get; init; }

    /// <summary>Whether every rule is among <see cref="Rules"/>; a file of version 2 has those of the order and the step only.</summary>
    [JsonIgnore]
    public bool RecordsAllRules => Version >= CurrentVersion;

    public required PlanPosition Position { get; init; }

    /// <summary>
    /// torch's own generator, for what draws from it within a step. The order of samples has its stream in <see cref="Position"/>, and dropout's is
    /// a function of the seed (in <see cref="Rules"/>) and the step.
    /// </summary>
    public required byte[] TorchRandom { get; init; }

    public required HistoryState History { get; init; }

    /// <summary>The evaluations, of a run that has them.</summary>
    public EvaluationState? Evaluations { get; init; }

    /// <summary>Steps that were skipped: the schedule stands at <see cref="Position"/>'s steps less these.</summary>
    public int SkippedSteps { get; init; }

    /// <summary>What decides the run's numbers (<see cref="ResumeRules"/>); a resume with other values would be another run.</summary>
    public required Dictionary<string, string> Rules { get; init; }

    /// <summary>What the samples were.</summary>
    public required DataFingerprint Data { get; init; }

    /// <summary>What the frozen weights were.</summary>
    public required string Base { get; init; }

    public static TrainingState Read(string folder)
    {
        string path = Path.Combine(folder, FileName);
        if (!File.Exists(path))
            throw new CheckpointException(folder, $"it holds no {FileName}, so it is not a checkpoint of a run (a folder of results alone can't be resumed from)",
                "Give a checkpoint-N folder of this trainer; TrainingCheckpoint.Latest finds the newest.");
        try
        {
            byte[] text = File.ReadAllBytes(path);
            int version = (int?)JsonNode.Parse(text)?[nameof(Version)] ?? 0;   // another version may have other fields
            if (version is CurrentVersion or VersionWithoutRun) return JsonSerializer.Deserialize<TrainingState>(text, Json)!;
            throw new CheckpointException(folder, $"its {FileName} has version {version} and this library writes version {CurrentVersion}", "Resume with the library that wrote it.");
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException or FormatException or IOException or UnauthorizedAccessException)
        {
            throw new CheckpointException(folder, $"its {FileName} can't be read ({e.Message.TrimEnd('.')})", "Resume from the checkpoint before it.", e);
        }
    }

    public void Write(string folder) => AtomicFile.WriteStream(Path.Combine(folder, FileName), stream => JsonSerializer.Serialize(stream, this, Json));
}

/// <summary>The sums behind the log.</summary>
internal sealed record HistoryState(List<LogEntry> Entries, double SinceLog, double Total, int LastLogged, long Tokens, int Steps, double Epoch, double Operations = 0);
