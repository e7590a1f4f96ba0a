using System.Globalization;
using System.Reflection;
using System.Text.Json.Serialization;

namespace Peft.Llava;

/// <summary>Fills a record of options from settings by name, without regard to case, and collects all that does not fit.</summary>
internal static class SettingsReader
{
    /// <summary>The setting that names the preset to start from.</summary>
    public const string Preset = "Preset";

    /// <summary>Options from settings; those not named keep the defaults, or the preset's values.</summary>
    public static TrainingOptions Read(SettingNode root, List<string> problems)
    {
        ArgumentNullException.ThrowIfNull(root);
        if (root.Children is null)
        {
            problems.Add("the settings are a single value; write an object with the fields of TrainingOptions");
            return new TrainingOptions();
        }
        var start = new TrainingOptions();
        var presets = root.Children.Where(c => IsPreset(c.Name)).ToList();
        if (presets is [{ } preset])
        {
            if (TrainingPresets.Find(preset.Text ?? "") is { } found) start = found;
            else problems.Add($"there is no preset '{preset.Text}'; choose one of {string.Join(", ", TrainingPresets.Names)}");
        }
        return (TrainingOptions)Fill(start, root with { Children = [.. root.Children.Where(c => !IsPreset(c.Name))] }, problems);
    }

    private static bool IsPreset(string name) => name.Equals(Preset, StringComparison.OrdinalIgnoreCase);

    /// <summary>A changed copy; the original may be a preset that others share.</summary>
    private static object Fill(object original, SettingNode group, List<string> problems)
    {
        var type = original.GetType();
        var known = type.GetProperties(BindingFlags.Public | BindingFlags.Instance)
            .Where(p => p.CanWrite && p.GetCustomAttribute<JsonIgnoreAttribute>() is null).ToDictionary(p => p.Name, StringComparer.OrdinalIgnoreCase);
        // A record's own copy.
        object copy = type.GetMethod("<Clone>$")!.Invoke(original, null)!;
        foreach (var twice in group.Children!.GroupBy(c => c.Name, StringComparer.OrdinalIgnoreCase).Where(g => g.Count() > 1))
            problems.Add($"{twice.First().Path} is given {twice.Count()} times");
        foreach (var child in group.Children!)
        {
            if (!known.TryGetValue(child.Name, out var property))
            {
                var names = group.Path.Length == 0 ? known.Keys.Append(Preset) : known.Keys;
                problems.Add($"there is no setting {child.Path}; the nearest is {NearestText.Find(child.Name, names)}");
            }
            else if (IsGroup(property.PropertyType))
            {
                if (child.Children is null) problems.Add($"{child.Path} is {Shown(child)}, and it is a group of settings: {string.Join(", ", NamesOf(property.PropertyType))}");
                else property.SetValue(copy, Fill(property.GetValue(copy)!, child, problems));
            }
            else if (child.Children is { Count: > 0 })
            {
                problems.Add($"{child.Path} is a group of settings, and it takes one value");
            }
            else if (Parse(property.PropertyType, child.Text, out object? value) is { } wanted)
            {
                problems.Add($"{child.Path} is {Shown(child)}, and it must be {wanted}");
            }
            else
            {
                property.SetValue(copy, value);
            }
        }
        return copy;
    }

    private static IEnumerable<string> NamesOf(Type type) => type.GetProperties(BindingFlags.Public | BindingFlags.Instance).Where(p => p.CanWrite).Select(p => p.Name);

    private static bool IsGroup(Type type) => type.IsClass && type != typeof(string);

    private static string Shown(SettingNode node) => node.Text is null ? "null" : $"'{node.Text}'";

    /// <summary>The value, or what the text should have been.</summary>
    private static string? Parse(Type type, string? text, out object? value)
    {
        value = null;
        var inner = Nullable.GetUnderlyingType(type);
        bool optional = inner is not null || type == typeof(string);
        type = inner ?? type;
        if (text is null || (text.Length == 0 && inner is not null)) return optional ? null : Describe(type);
        var invariant = CultureInfo.InvariantCulture;
        value = type switch
        {
            _ when type == typeof(string) => text,
            _ when type == typeof(bool) => bool.TryParse(text, out bool flag) ? flag : null,
            _ when type == typeof(int) => int.TryParse(text, NumberStyles.AllowLeadingSign, invariant, out int number) ? number : null,
            _ when type == typeof(long) => long.TryParse(text, NumberStyles.AllowLeadingSign, invariant, out long number) ? number : null,
            _ when type == typeof(double) => double.TryParse(text, NumberStyles.Float, invariant, out double number) ? number : null,
            // Names alone: a number would say nothing in a file.
            _ => Enum.GetNames(type).FirstOrDefault(n => n.Equals(text, StringComparison.OrdinalIgnoreCase)) is { } name ? Enum.Parse(type, name) : null,
        };
        return value is null ? Describe(type) : null;
    }

    private static string Describe(Type type) => type switch
    {
        _ when type.IsEnum => $"one of {string.Join(", ", Enum.GetNames(type))}",
        _ when type == typeof(bool) => "true or false",
        _ when type == typeof(double) => "a number",
        _ => "a whole number",
    };
}
