using System.Text.Json.Nodes;

namespace Peft.Llava;

/// <summary>Typed access to a JSON object that collects what is wrong instead of stopping at the first fault.</summary>
internal sealed class JsonFields(JsonObject document, List<string> problems, string prefix = "")
{
    /// <summary>Whether the document says something, null included.</summary>
    public bool Present(string name) => document.ContainsKey(name);

    public bool Has(string name) => document[name] is not null;

    public JsonFields Child(string name) => document[name] switch
    {
        JsonObject child => new JsonFields(child, problems, prefix + name + "."),
        null => new JsonFields([], problems, prefix + name + "."),
        var other => Problem(name, other, "an object", new JsonFields([], problems, prefix + name + ".")),
    };

    public int Int(string name, int fallback) => Nullable(name, "a whole number", ToInt) ?? fallback;

    public int? OptionalInt(string name) => Nullable(name, "a whole number", ToInt);

    public double Double(string name, double fallback) => Nullable<double>(name, "a number", ToDouble) ?? fallback;

    public bool Bool(string name, bool fallback = false)
        => Nullable<bool>(name, "true or false", v => v.TryGetValue(out bool b) ? b : null) ?? fallback;

    public string? Text(string name)
    {
        if (document[name] is not { } node) return null;
        return node is JsonValue value && value.TryGetValue(out string? text) ? text : Problem<string?>(name, node, "a text", null);
    }

    public IReadOnlyList<int> Ints(string name, IReadOnlyList<int> fallback)
    {
        switch (document[name])
        {
            case null: return fallback;
            case JsonArray array:
                var list = array.Select(n => n is JsonValue v ? ToInt(v) : null).ToList();
                return list.Contains(null) ? Problem(name, array, "whole numbers", fallback) : [.. list.Select(n => n!.Value)];
            default: return OptionalInt(name) is { } single ? [single] : fallback;
        }
    }

    public IReadOnlyList<(int First, int Second)> Pairs(string name)
    {
        if (document[name] is not { } node) return [];
        if (node is JsonArray array && array.All(p => p is JsonArray { Count: 2 } pair && pair.All(n => n is JsonValue v && ToInt(v) is > 0)))
            return [.. array.Select(p => (ToInt(p![0]!.AsValue())!.Value, ToInt(p[1]!.AsValue())!.Value))];
        return Problem<IReadOnlyList<(int, int)>>(name, node, "a list of pairs of positive whole numbers", []);
    }

    public void Require(bool condition, string sentence)
    {
        if (!condition) problems.Add(sentence);
    }

    public string Name(string name) => prefix + name;

    private T? Nullable<T>(string name, string wanted, Func<JsonValue, T?> read)
        where T : struct
    {
        if (document[name] is not { } node) return null;
        return node is JsonValue value && read(value) is { } found ? found : Problem<T?>(name, node, wanted, null);
    }

    private static int? ToInt(JsonValue value)
        => ToDouble(value) is { } number && number == Math.Floor(number) && Math.Abs(number) <= int.MaxValue ? (int)number
            : value.TryGetValue(out double large) && large > int.MaxValue ? int.MaxValue : null;

    private static double? ToDouble(JsonValue value)
        => value.TryGetValue(out double d) ? d : value.TryGetValue(out int i) ? i : value.TryGetValue(out long l) ? l : null;

    private T Problem<T>(string name, JsonNode found, string wanted, T result)
    {
        problems.Add($"{prefix}{name} should be {wanted}, is {found.ToJsonString()}.");
        return result;
    }
}
