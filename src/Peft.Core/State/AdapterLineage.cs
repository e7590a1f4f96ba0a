using System.Text.Json;
using System.Text.Json.Nodes;

namespace Peft.Core;

/// <summary>How an adapter goes on from another one.</summary>
public enum TrainOnMode
{
    /// <summary>The same adapter is trained further.</summary>
    ContinueSame,

    /// <summary>The adapter is merged into the base for good and a new one is trained on that.</summary>
    MergeThenNew,

    /// <summary>The adapter stays, frozen and active, and a new one is trained on top of it.</summary>
    StackNew,
}

/// <summary>
/// Where an adapter comes from, beside its folder's other files: <c>adapter_lineage.json</c>. PEFT does not look at it; its own settings cannot
/// carry it, since older versions stop at fields they do not know.
/// </summary>
/// <param name="BaseFingerprint">The fingerprint of the base's weights (<see cref="TensorFingerprint"/>), or null.</param>
/// <param name="Parent">The folder of the adapter that this one goes on from, or null.</param>
/// <param name="Mode">How it goes on; null without a parent.</param>
public sealed record AdapterLineage(string? BaseFingerprint, string? Parent = null, TrainOnMode? Mode = null)
{
    /// <summary>The file's name in an adapter folder.</summary>
    public const string FileName = "adapter_lineage.json";

    /// <summary>Reads the lineage of a folder.</summary>
    /// <param name="folder">The adapter folder.</param>
    /// <returns>The lineage, or null if the folder has none.</returns>
    /// <exception cref="AdapterFolderException">The file is damaged.</exception>
    public static AdapterLineage? Read(string folder)
    {
        string path = Path.Combine(folder, FileName);
        if (!File.Exists(path)) return null;
        try
        {
            var json = (JsonNode.Parse(File.ReadAllText(path)) ?? new JsonObject()).AsObject();
            string? mode = (string?)json["mode"];
            return new AdapterLineage((string?)json["base_fingerprint"], (string?)json["parent"], mode is null ? null : Enum.Parse<TrainOnMode>(mode));
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException or ArgumentException)
        {
            throw new AdapterFolderException(folder, $"{FileName} is damaged ({e.Message}). Remove it to load the adapter without its lineage.");
        }
    }

    internal void Write(string folder)
    {
        var json = new JsonObject { ["base_fingerprint"] = BaseFingerprint, ["parent"] = Parent, ["mode"] = Mode?.ToString() };
        AtomicFile.WriteText(Path.Combine(folder, FileName), PythonJson.Write(json));
    }
}
