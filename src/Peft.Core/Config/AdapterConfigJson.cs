using System.Text.Json;
using System.Text.Json.Nodes;

namespace Peft.Core;

/// <summary>Reads and writes <c>adapter_config.json</c> as PEFT does: its names, its order of fields, its form of numbers.</summary>
/// <remarks>
/// New settings are written with the fields of PEFT 0.10.0 (the version LLaVA's code runs with, which stops at a field it does not know)
/// plus those newer ones that are not at their default; every newer version reads that. Settings that were read are written with the
/// fields they came with.
/// </remarks>
public static class AdapterConfigJson
{
    /// <summary>The file's name in an adapter folder.</summary>
    public const string FileName = "adapter_config.json";

    // Features of PEFT that change the result and that this library does not have. Any value but null, false and {} turns one on.
    private static readonly string[] Unsupported =
    [
        "alora_invocation_tokens", "arrow_config", "corda_config", "kasa_config", "lora_ga_config", "megatron_config",
        "monteclora_config", "use_bdlora", "use_qalora", "velora_config",
    ];

    // Fields that change nothing by themselves: kept for the file, whatever they hold.
    private static readonly Dictionary<string, string?> Inert = new()
    {
        ["auto_mapping"] = "null", ["eva_config"] = "null", ["megatron_core"] = "\"megatron.core\"", ["peft_type"] = "\"LORA\"", ["peft_version"] = null,
        ["qalora_group_size"] = "16", ["revision"] = "null", ["runtime_config"] = "{\"ephemeral_gpu_offload\": false}",
    };

    private static readonly string[] OldInert = ["auto_mapping", "megatron_config", "megatron_core", "peft_type", "revision"];

    /// <summary>Reads an <c>adapter_config.json</c>.</summary>
    /// <param name="path">The file.</param>
    /// <returns>The settings; fields unknown to this library stand in <see cref="LoraConfig.Source"/>.</returns>
    /// <exception cref="InvalidLoraConfigException">The file is no JSON object or a field has a value it cannot have.</exception>
    /// <exception cref="UnsupportedAdapterFeatureException">A field turns on something this library does not have.</exception>
    public static LoraConfig Read(string path)
    {
        try
        {
            return Parse(File.ReadAllText(path));
        }
        catch (InvalidLoraConfigException e)
        {
            throw new InvalidLoraConfigException(e.Problems, path);
        }
        catch (UnsupportedAdapterFeatureException e)
        {
            throw new UnsupportedAdapterFeatureException(e.Features, path);
        }
    }

    /// <summary>Reads the text of an <c>adapter_config.json</c>.</summary>
    /// <param name="json">The text.</param>
    /// <returns>The settings.</returns>
    /// <exception cref="InvalidLoraConfigException">It is no JSON object or a field has a value it cannot have.</exception>
    /// <exception cref="UnsupportedAdapterFeatureException">A field turns on something this library does not have.</exception>
    public static LoraConfig Parse(string json)
    {
        JsonElement root;
        try
        {
            using var document = JsonDocument.Parse(json);
            root = document.RootElement.Clone();
        }
        catch (JsonException e)
        {
            throw new InvalidLoraConfigException([$"the text is no JSON: {e.Message}"]);
        }
        if (root.ValueKind != JsonValueKind.Object) throw new InvalidLoraConfigException(["the text is no JSON object"]);
        var source = new OrderedDictionary<string, JsonElement>();
        foreach (var field in root.EnumerateObject()) source[field.Name] = field.Value;
        CheckKind(source);
        CheckFeatures(source);
        var config = new LoraConfig { Source = source };
        var problems = new List<string>();
        foreach (var field in AdapterConfigField.All)
        {
            if (!source.TryGetValue(field.Name, out var value)) continue;
            try
            {
                config = field.Read(config, value);
            }
            catch (InvalidLoraConfigException e)
            {
                problems.AddRange(e.Problems);
            }
        }
        if (!source.ContainsKey("r")) problems.Add("r is missing; without it the adapter's tensors cannot be checked");
        if (problems.Count > 0) throw new InvalidLoraConfigException(problems);
        return config;
    }

    /// <summary>The settings as the text of an <c>adapter_config.json</c>.</summary>
    /// <param name="config">The settings.</param>
    /// <param name="allFields">Whether every field of the newest PEFT known here is written, defaults too.</param>
    /// <returns>The text, in PEFT's form.</returns>
    public static string Write(LoraConfig config, bool allFields = false)
    {
        ArgumentNullException.ThrowIfNull(config);
        var defaults = new LoraConfig();
        bool fromFile = config.Source.Count > 0;
        var json = new JsonObject();
        foreach (var field in AdapterConfigField.All)
        {
            var value = field.Write(config);
            bool isDefault = Same(value, field.Write(defaults));
            if (config.Source.TryGetValue(field.Name, out var original))
                json[field.Name] = Same(field.Write(field.Read(defaults, original)), value) ? JsonNode.Parse(original.GetRawText()) : value;
            else if (allFields || !isDefault || (!fromFile && field.IsOld))
                json[field.Name] = value;
        }
        foreach (var (name, value) in config.Source)
            if (!json.ContainsKey(name)) json[name] = JsonNode.Parse(value.GetRawText());
        AddInert(json, allFields, fromFile);
        return PythonJson.Write(json);
    }

    private static void AddInert(JsonObject json, bool allFields, bool fromFile)
    {
        foreach (string name in Unsupported.Concat(Inert.Keys))
        {
            if (json.ContainsKey(name) || !(allFields || (!fromFile && OldInert.Contains(name)))) continue;
            string? value = Inert.TryGetValue(name, out var known) ? known : name.StartsWith("use_qa", StringComparison.Ordinal) ? "false" : "null";
            if (value is not null) json[name] = JsonNode.Parse(value);
        }
    }

    private static bool Same(JsonNode? a, JsonNode? b) => PythonJson.Write(a) == PythonJson.Write(b);

    private static void CheckKind(IReadOnlyDictionary<string, JsonElement> source)
    {
        if (!source.TryGetValue("peft_type", out var kind))
            throw new InvalidLoraConfigException(["peft_type is missing; is this an adapter_config.json?"]);
        if (kind.ValueKind != JsonValueKind.String || kind.GetString() != "LORA")
            throw new UnsupportedAdapterFeatureException([$"peft_type {kind.GetRawText()}"]);
    }

    private static void CheckFeatures(IReadOnlyDictionary<string, JsonElement> source)
    {
        var known = AdapterConfigField.All.Select(f => f.Name).Concat(Inert.Keys).ToHashSet();
        var used = source.Where(f => !known.Contains(f.Key) && !IsOff(f.Value)).Select(f => $"{f.Key} = {Short(f.Value)}").ToList();
        if (used.Count > 0) throw new UnsupportedAdapterFeatureException(used);
    }

    private static bool IsOff(JsonElement value) => value.ValueKind switch
    {
        JsonValueKind.Null or JsonValueKind.False => true,
        JsonValueKind.Object => !value.EnumerateObject().Any(),
        JsonValueKind.Array => value.GetArrayLength() == 0,
        _ => false,
    };

    private static string Short(JsonElement value)
    {
        string text = value.GetRawText();
        return text.Length <= 60 ? text : text[..57] + "...";
    }
}
