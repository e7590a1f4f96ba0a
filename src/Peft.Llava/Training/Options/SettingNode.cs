using System.Globalization;
using System.Text.Json;
using Microsoft.Extensions.Configuration;

namespace Peft.Llava;

/// <summary>A setting as text with a name, or a group of settings: what JSON and a host's configuration have in common.</summary>
/// <param name="Name">The name.</param>
/// <param name="Path">Where it stands, for messages.</param>
/// <param name="Text">The value; null for a group, and for null.</param>
/// <param name="Children">The settings of a group; null for a value.</param>
internal sealed record SettingNode(string Name, string Path, string? Text, IReadOnlyList<SettingNode>? Children)
{
    public static SettingNode Of(JsonElement json, string name = "", string path = "") => json.ValueKind switch
    {
        JsonValueKind.Object => new(name, path, null, [.. json.EnumerateObject().Select(p => Of(p.Value, p.Name, Join(path, p.Name)))]),
        JsonValueKind.Array => new(name, path, null, [.. json.EnumerateArray().Select((e, i) => Of(e, i.ToString(CultureInfo.InvariantCulture), Join(path, $"{i}")))]),
        JsonValueKind.Null => new(name, path, null, null),
        JsonValueKind.String => new(name, path, json.GetString(), null),
        _ => new(name, path, json.GetRawText(), null),
    };

    /// <summary>A section; its own path is left out of the messages.</summary>
    public static SettingNode Of(IConfiguration section, string name = "", string path = "")
    {
        var children = section.GetChildren().Select(c => Of(c, c.Key, Join(path, c.Key))).ToList();
        return new(name, path, (section as IConfigurationSection)?.Value, children.Count > 0 || path.Length == 0 ? children : null);
    }

    private static string Join(string path, string name) => path.Length == 0 ? name : $"{path}.{name}";
}
