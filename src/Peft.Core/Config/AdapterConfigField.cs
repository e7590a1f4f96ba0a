using System.Text.Json;
using System.Text.Json.Nodes;

namespace Peft.Core;

/// <summary>One field of <c>adapter_config.json</c> that has a property in <see cref="LoraConfig"/>.</summary>
/// <param name="Name">The field's name in the file.</param>
/// <param name="IsOld">Whether PEFT 0.10.0, which refuses fields it does not know, writes it.</param>
/// <param name="Write">The property as JSON.</param>
/// <param name="Read">The settings with the property as the file has it.</param>
internal sealed record AdapterConfigField(
    string Name, bool IsOld, Func<LoraConfig, JsonNode?> Write, Func<LoraConfig, JsonElement, LoraConfig> Read)
{
    private static readonly string[] BiasWords = ["none", "all", "lora_only"];

    /// <summary>All of them.</summary>
    public static IReadOnlyList<AdapterConfigField> All { get; } = (AdapterConfigField[])
    [
        new("alpha_pattern", true, c => Object(c.AlphaPattern, PythonJson.Number), (c, e) => c with { AlphaPattern = Map(e, "alpha_pattern", Real) }),
        new("base_model_name_or_path", true, c => JsonValue.Create(c.BaseModel), (c, e) => c with { BaseModel = Text(e, "base_model_name_or_path") }),
        new("bias", true, c => JsonValue.Create(BiasWords[(int)c.Bias]), (c, e) => c with { Bias = Bias(e) }),
        new("ensure_weight_tying", false, c => c.EnsureWeightTying, (c, e) => c with { EnsureWeightTying = Flag(e, "ensure_weight_tying") }),
        new("exclude_modules", false, c => Modules(c.ExcludeModules), (c, e) => c with { ExcludeModules = Modules(e, "exclude_modules") }),
        new("fan_in_fan_out", true, c => c.FanInFanOut, (c, e) => c with { FanInFanOut = Flag(e, "fan_in_fan_out") }),
        new("inference_mode", true, c => c.InferenceMode, (c, e) => c with { InferenceMode = Flag(e, "inference_mode") }),
        new("init_lora_weights", true, c => InitNode(c.Init), (c, e) => c with { Init = Init(e) }),
        new("layer_replication", true, c => Pairs(c.LayerReplication), (c, e) => c with { LayerReplication = Pairs(e) }),
        new("layers_pattern", true, c => Strings(c.LayersPattern), (c, e) => c with { LayersPattern = IsEmptyText(e) ? [] : StringOrList(e, "layers_pattern") }),
        new("layers_to_transform", true, c => Numbers(c.LayersToTransform), (c, e) => c with { LayersToTransform = NumberOrList(e) }),
        new("loftq_config", true, c => LoftqNode(c.Loftq), (c, e) => c with { Loftq = LoftqOf(e) }),
        new("lora_alpha", true, c => PythonJson.Number(c.Alpha), (c, e) => c with { Alpha = Real(e, "lora_alpha") }),
        new("lora_bias", false, c => c.LoraBOwnBias, (c, e) => c with { LoraBOwnBias = Flag(e, "lora_bias") }),
        new("lora_dropout", true, c => PythonJson.Float(c.Dropout), (c, e) => c with { Dropout = Real(e, "lora_dropout") }),
        new("modules_to_save", true, c => Strings(c.ModulesToSave), (c, e) => c with { ModulesToSave = StringOrList(e, "modules_to_save") }),
        new("r", true, c => c.Rank, (c, e) => c with { Rank = Whole(e, "r") }),
        new("rank_pattern", true, c => Object(c.RankPattern, r => JsonValue.Create(r)), (c, e) => c with { RankPattern = Map(e, "rank_pattern", Whole) }),
        new("target_modules", true, c => Modules(c.TargetModules), (c, e) => c with { TargetModules = Modules(e, "target_modules") }),
        new("target_parameters", false, c => Strings(c.TargetParameters), (c, e) => c with { TargetParameters = StringOrList(e, "target_parameters") }),
        new("task_type", true, c => JsonValue.Create(c.TaskType), (c, e) => c with { TaskType = Text(e, "task_type") }),
        new("trainable_token_indices", false, c => Tokens(c.TrainableTokens), (c, e) => c with { TrainableTokens = Tokens(e) }),
        new("use_dora", true, c => c.UseDora, (c, e) => c with { UseDora = Flag(e, "use_dora") }),
        new("use_rslora", true, c => c.UseRsLora, (c, e) => c with { UseRsLora = Flag(e, "use_rslora") }),
    ];

    private static JsonNode? Strings(IReadOnlyList<string>? list)
        => list is null ? null : new JsonArray([.. list.Select(s => (JsonNode)JsonValue.Create(s))]);

    private static JsonNode? Numbers(IReadOnlyList<int>? list)
        => list is null ? null : new JsonArray([.. list.Select(n => (JsonNode)JsonValue.Create(n))]);

    private static JsonNode? Modules(TargetModules? modules)
        => modules is null ? null : modules.Pattern is { } pattern ? JsonValue.Create(pattern) : Strings([.. modules.Order(StringComparer.Ordinal)]);

    private static JsonObject Object<T>(IReadOnlyDictionary<string, T> map, Func<T, JsonNode?> value)
        => new(map.Select(entry => KeyValuePair.Create(entry.Key, value(entry.Value))));

    private static JsonNode? Pairs(IReadOnlyList<(int Start, int End)>? pairs)
        => pairs is null ? null : new JsonArray([.. pairs.Select(p => (JsonNode)new JsonArray(p.Start, p.End))]);

    private static JsonNode InitNode(LoraInit init)
        => init == LoraInit.Default ? JsonValue.Create(true) : init == LoraInit.Random ? JsonValue.Create(false) : JsonValue.Create(init.Word);

    private static JsonObject LoftqNode(LoftqSettings? loftq)
        => loftq is null ? [] : new JsonObject { ["loftq_bits"] = loftq.Bits, ["loftq_iter"] = loftq.Iterations };

    private static JsonNode? Tokens(IReadOnlyDictionary<string, IReadOnlyList<long>>? tokens)
    {
        if (tokens is null) return null;
        static JsonArray List(IReadOnlyList<long> list) => new([.. list.Select(n => (JsonNode)JsonValue.Create(n))]);
        return tokens.Count == 1 && tokens.TryGetValue("", out var only)
            ? List(only)
            : new JsonObject(tokens.Select(t => KeyValuePair.Create(t.Key, (JsonNode?)List(t.Value))));
    }

    private static string? Text(JsonElement e, string name)
        => e.ValueKind switch { JsonValueKind.Null => null, JsonValueKind.String => e.GetString(), _ => throw Wrong(name, "a text", e) };

    private static bool Flag(JsonElement e, string name)
        => e.ValueKind is JsonValueKind.True or JsonValueKind.False ? e.GetBoolean() : e.ValueKind == JsonValueKind.Null ? false : throw Wrong(name, "true or false", e);

    private static int Whole(JsonElement e, string name)
        => e.ValueKind == JsonValueKind.Number && e.TryGetInt32(out int n) ? n : throw Wrong(name, "a whole number", e);

    private static double Real(JsonElement e, string name)
        => e.ValueKind == JsonValueKind.Number ? e.GetDouble() : throw Wrong(name, "a number", e);

    private static IReadOnlyList<string>? StringOrList(JsonElement e, string name) => e.ValueKind switch
    {
        JsonValueKind.Null => null,
        JsonValueKind.String => [e.GetString()!],
        JsonValueKind.Array => [.. e.EnumerateArray().Select(i => Text(i, name) ?? throw Wrong(name, "a list of texts", e))],
        _ => throw Wrong(name, "a list of texts", e),
    };

    private static bool IsEmptyText(JsonElement e) => e.ValueKind == JsonValueKind.String && e.GetString()!.Length == 0;

    private static TargetModules? Modules(JsonElement e, string name) => e.ValueKind switch
    {
        JsonValueKind.Null => null,
        JsonValueKind.String => TargetModules.Regex(e.GetString()!),
        _ => TargetModules.Names([.. StringOrList(e, name)!]),
    };

    private static IReadOnlyList<int>? NumberOrList(JsonElement e) => e.ValueKind switch
    {
        JsonValueKind.Null => null,
        JsonValueKind.Array => [.. e.EnumerateArray().Select(i => Whole(i, "layers_to_transform"))],
        _ => [Whole(e, "layers_to_transform")],
    };

    private static OrderedDictionary<string, T> Map<T>(JsonElement e, string name, Func<JsonElement, string, T> value)
    {
        if (e.ValueKind == JsonValueKind.Null) return [];
        if (e.ValueKind != JsonValueKind.Object) throw Wrong(name, "an object", e);
        var map = new OrderedDictionary<string, T>();
        foreach (var field in e.EnumerateObject()) map[field.Name] = value(field.Value, $"{name}['{field.Name}']");
        return map;
    }

    private static LoraBias Bias(JsonElement e)
    {
        int index = e.ValueKind == JsonValueKind.String ? Array.IndexOf(BiasWords, e.GetString()) : -1;
        return index >= 0 ? (LoraBias)index : throw Wrong("bias", "'none', 'all' or 'lora_only'", e);
    }

    private static LoraInit Init(JsonElement e) => e.ValueKind switch
    {
        JsonValueKind.True or JsonValueKind.Null => LoraInit.Default,
        JsonValueKind.False => LoraInit.Random,
        // EVA chose its factors before the training from data; what was trained and saved is a plain LoRA. The file keeps the word.
        JsonValueKind.String when string.Equals(e.GetString(), "eva", StringComparison.OrdinalIgnoreCase) => LoraInit.Default,
        JsonValueKind.String => new LoraInit(e.GetString()!),
        _ => throw Wrong("init_lora_weights", "true, false or a text", e),
    };

    private static IReadOnlyList<(int, int)>? Pairs(JsonElement e)
    {
        if (e.ValueKind == JsonValueKind.Null) return null;
        if (e.ValueKind != JsonValueKind.Array || e.EnumerateArray().Any(p => p.ValueKind != JsonValueKind.Array || p.GetArrayLength() != 2))
            throw Wrong("layer_replication", "a list of pairs", e);
        return [.. e.EnumerateArray().Select(p => (Whole(p[0], "layer_replication"), Whole(p[1], "layer_replication")))];
    }

    private static LoftqSettings? LoftqOf(JsonElement e)
    {
        if (e.ValueKind == JsonValueKind.Null || (e.ValueKind == JsonValueKind.Object && !e.EnumerateObject().Any())) return null;
        var map = Map(e, "loftq_config", Whole);
        return new LoftqSettings(map.GetValueOrDefault("loftq_bits", 4), map.GetValueOrDefault("loftq_iter", 1));
    }

    private static IReadOnlyDictionary<string, IReadOnlyList<long>>? Tokens(JsonElement e)
    {
        static IReadOnlyList<long> List(JsonElement list, string name)
            => list.ValueKind == JsonValueKind.Array ? [.. list.EnumerateArray().Select(i => (long)Whole(i, name))] : throw Wrong(name, "a list of token ids", list);
        return e.ValueKind switch
        {
            JsonValueKind.Null => null,
            JsonValueKind.Array => new Dictionary<string, IReadOnlyList<long>> { [""] = List(e, "trainable_token_indices") },
            _ => Map(e, "trainable_token_indices", List),
        };
    }

    private static InvalidLoraConfigException Wrong(string name, string wanted, JsonElement got)
        => new([$"{name} must be {wanted}, got {got.GetRawText()}"]);
}
