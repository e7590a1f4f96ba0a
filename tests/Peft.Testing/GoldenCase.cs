using System.Text.Json;
using Peft.Core;
using static TorchSharp.torch;

namespace Peft.Testing;

/// <summary>One recorded case: a folder with a <c>case.json</c>.</summary>
public sealed class GoldenCase
{
    private readonly Lazy<JsonElement> _json;

    /// <summary>Opens the case in a folder.</summary>
    public GoldenCase(string folder)
    {
        Folder = folder;
        _json = new Lazy<JsonElement>(() => JsonDocument.Parse(File.ReadAllBytes(Path.Combine(folder, "case.json"))).RootElement);
    }

    /// <summary>The case's folder.</summary>
    public string Folder { get; }

    /// <summary>The area's folder, to which some paths of the cases are relative.</summary>
    public string AreaFolder => Path.GetDirectoryName(Folder)!;

    /// <summary>The folder's name, which ends the display name of its tests.</summary>
    public string Name => Path.GetFileName(Folder);

    /// <summary>case.json.</summary>
    public JsonElement Json => _json.Value;

    /// <summary>The field <c>kind</c>, or null.</summary>
    public string? Kind => Json.TryGetProperty("kind", out var kind) ? kind.GetString() : null;

    /// <summary>A file of the case, by its path relative to the folder.</summary>
    public string PathOf(string relative) => Path.GetFullPath(Path.Combine(Folder, relative));

    /// <summary>A safetensors file of the case; the caller disposes the reader.</summary>
    public SafetensorsReader Tensors(string relative) => SafetensorsReader.Open(PathOf(relative));

    /// <inheritdoc/>
    public override string ToString() => Name;
}
