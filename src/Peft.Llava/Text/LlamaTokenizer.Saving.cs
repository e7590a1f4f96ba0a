using System.Diagnostics;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;
using Peft.Core;

namespace Peft.Llava;

public sealed partial class LlamaTokenizer
{
    private static readonly JsonSerializerOptions Indented = new() { WriteIndented = true, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    /// <summary>
    /// Writes the tokenizer's files, so that <see cref="FromFolder"/> and the Python libraries read the same tokenizer: the model file as it
    /// was read, and <c>tokenizer_config.json</c>, <c>special_tokens_map.json</c> and (with new tokens) <c>added_tokens.json</c> as it is now.
    /// What the configuration held besides is kept.
    /// </summary>
    /// <param name="folder">The folder; made if it is missing.</param>
    /// <exception cref="TokenizerFileException">The files that this tokenizer was read from are no longer there.</exception>
    public void Save(string folder)
    {
        ArgumentNullException.ThrowIfNull(folder);
        Directory.CreateDirectory(folder);
        WriteModelFile(folder);
        AtomicFile.WriteText(Path.Combine(folder, "tokenizer_config.json"), Text(ConfigJson()));
        AtomicFile.WriteText(Path.Combine(folder, "special_tokens_map.json"), Text(SpecialTokensJson()));
        var fresh = AddedTokens.Where(t => t.Id >= VocabularySize).Select(t => KeyValuePair.Create(t.Content, (JsonNode?)JsonValue.Create(t.Id))).ToList();
        if (fresh.Count > 0) AtomicFile.WriteText(Path.Combine(folder, "added_tokens.json"), Text(new JsonObject(fresh)));
    }

    private void WriteModelFile(string folder)
    {
        if (_data.SourceFile is not { } source)
        {
            var pieces = _data.Pieces ?? throw new UnreachableException("A tokenizer that was not read from a file is made from its pieces.");
            AtomicFile.WriteStream(Path.Combine(folder, ModelFile), stream => stream.Write(SentencePieceWriter.Write(pieces)));
            return;
        }
        if (!File.Exists(source))
            throw new TokenizerFileException(source, "is no longer there, but the tokenizer was read from it.", "Put it back, or load the tokenizer again.");
        string target = Path.Combine(folder, Path.GetFileName(source));
        if (source.EndsWith(".json", StringComparison.Ordinal)) AtomicFile.WriteText(target, TokenizerJson(source));
        else if (Path.GetFullPath(source) != Path.GetFullPath(target)) AtomicFile.Write(target, temp => File.Copy(source, temp, overwrite: true));
    }

    private JsonObject ConfigJson()
    {
        var json = (JsonObject)_data.RawConfig.DeepClone();
        json["added_tokens_decoder"] = new JsonObject(AddedTokens.Select(t => KeyValuePair.Create(t.Id.ToString(), (JsonNode?)TokenJson(t, withSpecial: true))));
        foreach (var (role, content) in _data.Roles) json[role] = content;
        if (AdditionalSpecial().ToArray() is { Length: > 0 } additional) json["additional_special_tokens"] = additional.ToJsonArray();
        json["add_bos_token"] = AddsBos;
        json["add_eos_token"] = _data.AddEos;
        if (ModelMaxLength is { } length) json["model_max_length"] = length;
        if (!IsByteLevel && Behavior is TokenizerBehavior.SentencePiece or TokenizerBehavior.SentencePieceLegacy)
            json["legacy"] = Behavior == TokenizerBehavior.SentencePieceLegacy;
        if (!json.ContainsKey("tokenizer_class")) json["tokenizer_class"] = IsByteLevel ? "PreTrainedTokenizerFast" : "LlamaTokenizer";
        return json.Sorted();
    }

    private JsonObject SpecialTokensJson()
    {
        var json = new JsonObject();
        foreach (var (role, content) in _data.Roles)
            json[role] = AddedTokens.FirstOrDefault(t => t.Content == content) is { } token ? TokenJson(token, withSpecial: false) : content;
        if (AdditionalSpecial().ToArray() is { Length: > 0 } additional) json["additional_special_tokens"] = additional.ToJsonArray();
        return json.Sorted();
    }

    /// <summary>tokenizer.json with the added tokens of now.</summary>
    private string TokenizerJson(string source)
    {
        var json = JsonNode.Parse(File.ReadAllBytes(source))!;
        json["added_tokens"] = new JsonArray([.. AddedTokens.Select(t =>
        {
            var entry = TokenJson(t, withSpecial: true);
            entry.Insert(0, "id", t.Id);
            return (JsonNode?)entry;
        })]);
        return Text(json);
    }

    private IEnumerable<string> AdditionalSpecial()
        => AddedTokens.Where(t => t.IsSpecial && t.Id >= VocabularySize && !_data.Roles.Values.Contains(t.Content)).Select(t => t.Content);

    private static JsonObject TokenJson(AddedToken token, bool withSpecial)
    {
        var json = new JsonObject
        {
            ["content"] = token.Content, ["lstrip"] = token.StripLeft, ["normalized"] = false, ["rstrip"] = token.StripRight, ["single_word"] = false,
        };
        if (withSpecial) json["special"] = token.IsSpecial;
        return json;
    }

    private static string Text(JsonNode json) => json.ToJsonString(Indented) + "\n";
}

/// <summary>Small helpers for JSON that is written.</summary>
internal static class JsonWriting
{
    /// <summary>A copy with its keys in ordinal order, as Python's <c>sort_keys</c> writes them.</summary>
    public static JsonObject Sorted(this JsonObject source)
        => new(source.OrderBy(p => p.Key, StringComparer.Ordinal).Select(p => KeyValuePair.Create(p.Key, p.Value?.DeepClone())));

    /// <summary>An array of strings.</summary>
    public static JsonArray ToJsonArray(this IEnumerable<string> values) => new([.. values.Select(v => (JsonNode?)JsonValue.Create(v))]);
}
