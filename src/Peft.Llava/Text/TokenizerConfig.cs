using System.Text.Json;
using System.Text.Json.Nodes;

namespace Peft.Llava;

/// <summary>
/// <c>tokenizer_config.json</c> with <c>special_tokens_map.json</c> and <c>added_tokens.json</c> beside it. What is not understood is kept
/// and written again.
/// </summary>
internal sealed class TokenizerConfig
{
    private static readonly string[] RoleNames = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

    /// <summary>tokenizer_config.json as it was read.</summary>
    public JsonObject Raw { get; private init; } = [];

    /// <summary>Whether the folder asks for the legacy behaviour; null where it says nothing.</summary>
    public bool? Legacy { get; private set; }

    public bool? AddBos { get; private set; }

    public bool AddEos { get; private set; }

    public bool AddPrefixSpace { get; private set; } = true;

    /// <summary>The longest text in tokens; null where the file names no limit that a program could reach.</summary>
    public int? ModelMaxLength { get; private set; }

    /// <summary>Texts of the tokens with a role, by the role's key (<c>bos_token</c> …).</summary>
    public Dictionary<string, string> Roles { get; } = [];

    /// <summary>Texts of <c>additional_special_tokens</c>.</summary>
    public List<string> AdditionalSpecial { get; } = [];

    /// <summary>Added tokens with the ids that the files give them.</summary>
    public List<AddedToken> Added { get; } = [];

    /// <summary>Reads the files of a folder; those that are missing count as empty.</summary>
    /// <exception cref="TokenizerFileException">A file is damaged.</exception>
    public static TokenizerConfig Read(string folder)
    {
        var raw = ReadObject(Path.Combine(folder, "tokenizer_config.json"));
        var config = new TokenizerConfig { Raw = raw ?? [] };
        string path = Path.Combine(folder, "tokenizer_config.json");
        try
        {
            config.ReadTokens(ReadObject(path = Path.Combine(folder, "special_tokens_map.json")));
            path = Path.Combine(folder, "tokenizer_config.json");
            config.ReadConfig(config.Raw);
            config.ReadAddedTokensFile(ReadObject(path = Path.Combine(folder, "added_tokens.json")));
        }
        catch (Exception e) when (e is InvalidOperationException or FormatException or KeyNotFoundException)
        {
            throw new TokenizerFileException(path, $"holds a value of an unexpected kind ({e.Message}).", "Copy it again from its checkpoint.", e);
        }
        return config;
    }

    private void ReadConfig(JsonObject raw)
    {
        ReadTokens(raw);
        Legacy = Value<bool>(raw, "legacy");
        AddBos = Value<bool>(raw, "add_bos_token");
        AddEos = Value<bool>(raw, "add_eos_token") ?? false;
        AddPrefixSpace = Value<bool>(raw, "add_prefix_space") ?? true;
        ModelMaxLength = Value<double>(raw, "model_max_length") is { } length && length is > 0 and < int.MaxValue ? (int)length : null;
        if (raw["added_tokens_decoder"] is not JsonObject decoder) return;
        foreach (var (id, token) in decoder)
        {
            var entry = token!.AsObject();
            Added.Add(new AddedToken(
                entry["content"]!.GetValue<string>(), int.Parse(id), Value<bool>(entry, "special") ?? false,
                Value<bool>(entry, "lstrip") ?? false, Value<bool>(entry, "rstrip") ?? false, Value<bool>(entry, "normalized") ?? false));
        }
    }

    private void ReadTokens(JsonObject? source)
    {
        if (source is null) return;
        foreach (string role in RoleNames)
            if (source[role] is { } token) Roles[role] = ContentOf(token);
        if (source["additional_special_tokens"] is not JsonArray additional) return;
        AdditionalSpecial.Clear();
        AdditionalSpecial.AddRange(additional.Select(t => ContentOf(t!)));
    }

    private void ReadAddedTokensFile(JsonObject? source)
    {
        foreach (var (content, id) in source ?? [])
        {
            int number = id!.GetValue<int>();
            if (!Added.Exists(t => t.Id == number)) Added.Add(new AddedToken(content, number, AdditionalSpecial.Contains(content)));
        }
    }

    private static string ContentOf(JsonNode token) => token is JsonObject o ? o["content"]!.GetValue<string>() : token.GetValue<string>();

    private static T? Value<T>(JsonObject source, string name)
        where T : struct
        => source[name] is { } node ? node.GetValue<T>() : null;

    private static JsonObject? ReadObject(string path)
    {
        if (!File.Exists(path)) return null;
        try
        {
            return JsonNode.Parse(File.ReadAllBytes(path))!.AsObject();
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException or NullReferenceException)
        {
            throw new TokenizerFileException(path, $"is no JSON object ({e.Message}).", "Copy it again from its checkpoint.", e);
        }
    }
}
