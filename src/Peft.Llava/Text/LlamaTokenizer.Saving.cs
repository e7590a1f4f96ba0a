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
    /// was read, and <c>tokenizer_config.json</c>, <c>special_tokens_map.json</c> and (with new tokens) <c>added_tokens.json</c> as it is now, in the
    /// form of transformers' <c>LlamaTokenizer.save_pretrained</c>. A <c>tokenizer.json</c> beside the model file goes along, with the tokens of now.
    /// What the configuration held besides is kept.
    /// </summary>
    /// <param name="folder">The folder; made if it is missing.</param>
    /// <exception cref="TokenizerFileException">The files that this tokenizer was read from are no longer there.</exception>
    /// <exception cref="FileWriteException">The operating system refused.</exception>
    public void Save(string folder)
    {
        ArgumentNullException.ThrowIfNull(folder);
        OutputFolder.Create(folder);
        WriteModelFiles(folder);
        AtomicFile.WriteText(Path.Combine(folder, "tokenizer_config.json"), Text(ConfigJson()));
        AtomicFile.WriteText(Path.Combine(folder, "special_tokens_map.json"), Text(SpecialTokensJson()));
        string added = Path.Combine(folder, "added_tokens.json");
        var fresh = AddedTokens.Where(t => t.Id >= VocabularySize).Select(t => KeyValuePair.Create(t.Content, (JsonNode?)JsonValue.Create(t.Id))).ToList();
        if (fresh.Count > 0) AtomicFile.WriteText(added, Text(new JsonObject(fresh).Sorted()));
        else File.Delete(added);                              // another tokenizer's, which would be read as this one's
    }

    /// <summary>
    /// Writes a <c>tokenizer.json</c> where <see cref="Save"/> writes a <c>tokenizer.model</c> alone: transformers 5 makes a tokenizer without the space before a
    /// text from a llava-hf folder that has none.
    /// </summary>
    /// <param name="folder">The folder.</param>
    internal void WriteFastFile(string folder)
    {
        if (IsByteLevel || _data.SourceFile is { } source && (source.EndsWith(".json", StringComparison.Ordinal) || File.Exists(Path.Combine(Path.GetDirectoryName(source)!, JsonFile)))) return;
        var pieces = _data.Pieces ?? SentencePieceFile.Read(_data.SourceFile!).Pieces;
        // Pieces that are found whole are added tokens there.
        var whole = pieces.Select((piece, id) => (piece, id)).Where(p => p.piece.Kind == SentencePieceKind.UserDefined && !_addedById.ContainsKey(p.id)).Select(p => new AddedToken(p.piece.Text, p.id, false));
        var added = AddedTokens.Concat(whole).OrderBy(t => t.Id).Select(FastEntry);
        (string, int)? Role(bool wanted, int? id) => wanted && id is { } found ? (TokenOf(found), found) : null;
        var json = FastTokenizerFile.Make(pieces, added, Role(_data.AddBos, BosId), Role(_data.AddEos, EosId), UnknownId is { } unknown ? TokenOf(unknown) : null);
        AtomicFile.WriteText(Path.Combine(folder, JsonFile), json.ToJsonString(Indented));
    }

    private static JsonObject FastEntry(AddedToken token) => new()
    {
        ["id"] = token.Id,
        ["content"] = token.Content,
        ["single_word"] = false,
        ["lstrip"] = token.StripLeft,
        ["rstrip"] = token.StripRight,
        ["normalized"] = token.IsNormalized,
        ["special"] = token.IsSpecial,
    };

    private void WriteModelFiles(string folder)
    {
        if (_data.SourceFile is not { } source)
        {
            // A tokenizer that was not read from a file is made from its pieces.
            AtomicFile.WriteStream(Path.Combine(folder, ModelFile), stream => stream.Write(SentencePieceWriter.Write(_data.Pieces!)));
            return;
        }
        if (!File.Exists(source))
            throw new TokenizerFileException(source, "is no longer there, but the tokenizer was read from it.", "Put it back, or load the tokenizer again.");
        string target = Path.Combine(folder, Path.GetFileName(source));
        if (source.EndsWith(".json", StringComparison.Ordinal))
        {
            AtomicFile.WriteText(target, TokenizerJson(source));
            return;
        }
        if (Path.GetFullPath(source) != Path.GetFullPath(target)) AtomicFile.Write(target, temp => File.Copy(source, temp, overwrite: true));
        string beside = Path.Combine(Path.GetDirectoryName(source)!, JsonFile);
        if (File.Exists(beside)) AtomicFile.WriteText(Path.Combine(folder, JsonFile), TokenizerJson(beside));
    }

    private JsonObject ConfigJson()
    {
        var json = (JsonObject)_data.RawConfig.DeepClone();
        json["added_tokens_decoder"] = new JsonObject(AddedTokens.Select(t => KeyValuePair.Create(t.Id.ToString(), (JsonNode?)TokenJson(t, withSpecial: true))));
        foreach (var (role, content) in _data.Roles) json[role] = content;
        if (AdditionalSpecial().ToArray() is { Length: > 0 } additional) json["additional_special_tokens"] = additional.Select(t => t.Content).ToJsonArray();
        json["add_bos_token"] = AddsBos;
        json["add_eos_token"] = _data.AddEos;
        if (ModelMaxLength is { } length) json["model_max_length"] = length;
        if (!IsByteLevel && Behavior is TokenizerBehavior.SentencePiece or TokenizerBehavior.SentencePieceLegacy)
            json["legacy"] = Behavior == TokenizerBehavior.SentencePieceLegacy;
        if (!json.ContainsKey("tokenizer_class")) json["tokenizer_class"] = IsByteLevel ? "PreTrainedTokenizerFast" : "LlamaTokenizer";
        return json.Sorted();
    }

    /// <summary>Tokens as objects, but a padding token that is another role's token (LLaVA's <c>pad_token = unk_token</c>) as text, as transformers has it.</summary>
    private JsonObject SpecialTokensJson()
    {
        var json = new JsonObject();
        foreach (var (role, content) in _data.Roles)
        {
            bool borrowed = role == PadRole && _data.Roles.Any(r => r.Key != PadRole && r.Value == content);
            json[role] = !borrowed && AddedTokens.FirstOrDefault(t => t.Content == content) is { } token ? TokenJson(token, withSpecial: false) : content;
        }
        if (AdditionalSpecial().ToArray() is { Length: > 0 } additional)
            json["additional_special_tokens"] = new JsonArray([.. additional.Select(t => (JsonNode?)TokenJson(t, withSpecial: false))]);
        return json.Sorted();
    }

    /// <summary>tokenizer.json with the added tokens of now; those that it has already stay as they are.</summary>
    private string TokenizerJson(string source)
    {
        var json = JsonNode.Parse(File.ReadAllBytes(source))!;
        var held = json["added_tokens"]?.AsArray().ToDictionary(t => (string)t!["content"]!, t => (JsonObject)t!.DeepClone()) ?? [];
        json["added_tokens"] = new JsonArray([.. AddedTokens.Select(t =>
        {
            var entry = held.GetValueOrDefault(t.Content) ?? TokenJson(t, withSpecial: true);
            entry["special"] = t.IsSpecial;
            entry.Remove("id");
            entry.Insert(0, "id", t.Id);
            return (JsonNode?)entry;
        })]);
        return Text(json);
    }

    private IEnumerable<AddedToken> AdditionalSpecial()
        => AddedTokens.Where(t => t.IsSpecial && t.Id >= VocabularySize && !_data.Roles.Values.Contains(t.Content));

    /// <summary>A token as transformers' <c>AddedToken</c>: as the configuration had it, or new, when only special ones are kept from normalisation.</summary>
    private JsonObject TokenJson(AddedToken token, bool withSpecial)
    {
        var held = _data.RawConfig["added_tokens_decoder"]?[token.Id.ToString()];
        bool same = held is not null && (string?)held["content"] == token.Content;
        var json = new JsonObject
        {
            ["content"] = token.Content,
            ["lstrip"] = token.StripLeft,
            ["normalized"] = (same ? (bool?)held!["normalized"] : null) ?? token.IsNormalized,
            ["rstrip"] = token.StripRight,
            ["single_word"] = (same ? (bool?)held!["single_word"] : null) ?? false,
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
