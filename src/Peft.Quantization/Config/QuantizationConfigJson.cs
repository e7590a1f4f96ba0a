using System.Text.Json;
using System.Text.Json.Nodes;
using Peft.Core;
using static TorchSharp.torch;

namespace Peft.Quantization;

/// <summary>The <c>quantization_config</c> of a <c>config.json</c>, in transformers' words.</summary>
public static class QuantizationConfigJson
{
    /// <summary>Reads it.</summary>
    /// <param name="json">The object.</param>
    /// <param name="source">What messages call the file.</param>
    /// <returns>
    /// The settings, with transformers' defaults where a field is missing: fp4, float32 compute, threshold 6; without a skip list
    /// <c>lm_head</c> alone is skipped, by transformers' rule.
    /// </returns>
    /// <exception cref="QuantizationConfigException">Another method than bitsandbytes, or values that cannot be.</exception>
    public static QuantizationConfig Read(JsonElement json, string source)
    {
        string method = Text(json, "quant_method") ?? "bitsandbytes";
        if (method != "bitsandbytes") throw new QuantizationConfigException(source, [$"quant_method is '{method}'; only bitsandbytes is known"]);
        bool four = Flag(json, "load_in_4bit"), eight = Flag(json, "load_in_8bit");
        if (four == eight) throw new QuantizationConfigException(source, ["exactly one of load_in_4bit and load_in_8bit must be true"]);
        if (Flag(json, "llm_int8_has_fp16_weight"))
            throw new QuantizationConfigException(source, ["llm_int8_has_fp16_weight keeps fp16 weights beside the int8 ones, which is not supported"]);
        string? compute = Text(json, "bnb_4bit_compute_dtype");
        if (compute is not null && DtypeNames.FromPython(compute) is null)
            throw new QuantizationConfigException(source, [$"bnb_4bit_compute_dtype '{compute}' is not known"]);
        var config = new QuantizationConfig
        {
            Bits = four ? 4 : 8,
            QuantType = new QuantType(Text(json, "bnb_4bit_quant_type") ?? "fp4"),
            DoubleQuantization = Flag(json, "bnb_4bit_use_double_quant"),
            ComputeDtype = compute is null ? ScalarType.Float32 : DtypeNames.FromPython(compute),
            Threshold = json.TryGetProperty("llm_int8_threshold", out var threshold) ? threshold.GetSingle() : Int8Linear.DefaultThreshold,
            SkipModules = json.TryGetProperty("llm_int8_skip_modules", out var skip) && skip.ValueKind == JsonValueKind.Array
                ? [.. skip.EnumerateArray().Select(e => e.GetString()!)]
                : ["lm_head"],
            SkipRule = SkipRule.Transformers5,
        };
        var problems = config.Problems();
        return problems.Count == 0 ? config : throw new QuantizationConfigException(source, problems);
    }

    /// <summary>Writes it, with the fields that transformers writes, in its order.</summary>
    /// <param name="config">The settings.</param>
    /// <returns>The object.</returns>
    public static JsonObject Write(QuantizationConfig config)
    {
        ArgumentNullException.ThrowIfNull(config);
        bool four = config.Bits == 4;
        return new JsonObject
        {
            ["_load_in_4bit"] = four,
            ["_load_in_8bit"] = !four,
            ["bnb_4bit_compute_dtype"] = DtypeNames.ToPython(config.ComputeDtype ?? ScalarType.Float32),
            ["bnb_4bit_quant_storage"] = "uint8",
            ["bnb_4bit_quant_type"] = four ? config.QuantType.Name : "fp4",
            ["bnb_4bit_use_double_quant"] = four && config.DoubleQuantization,
            ["llm_int8_enable_fp32_cpu_offload"] = false,
            ["llm_int8_has_fp16_weight"] = false,
            ["llm_int8_skip_modules"] = config.SkipModules is null ? null : new JsonArray([.. config.SkipModules.Select(s => (JsonNode)s)]),
            ["llm_int8_threshold"] = PythonJson.Single(config.Threshold),
            ["load_in_4bit"] = four,
            ["load_in_8bit"] = !four,
            ["quant_method"] = "bitsandbytes",
        };
    }

    private static bool Flag(JsonElement json, string name) => json.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.True;

    private static string? Text(JsonElement json, string name)
        => json.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.String ? value.GetString() : null;
}
