using System.Text.Json;

namespace Peft.Llava;

/// <summary>
/// Reads <c>tokenizer.json</c>: a BPE model whose merges are strings or pairs, with the LLaMA kind of spaces (a normalizer that prepends, or
/// Metaspace) or the byte level of GPT-2. Every other component is refused by name.
/// </summary>
internal sealed class TokenizerJsonFile
{
    private const string KindStep = "Use a LLaMA or GPT-2 kind of tokenizer, or the checkpoint's tokenizer.model.";
    private readonly string _path;

    private TokenizerJsonFile(string path) => _path = path;

    /// <summary>The vocabulary and merges.</summary>
    public BpeModel Model { get; private set; } = null!;

    /// <summary>The behaviour that the file itself describes.</summary>
    public TokenizerBehavior Behavior { get; private set; } = TokenizerBehavior.Fast;

    /// <summary>The added tokens, in the file's order.</summary>
    public List<AddedToken> AddedTokens { get; } = [];

    /// <summary>The token that the file puts in front of every text, or null.</summary>
    public string? FirstToken { get; private set; }

    /// <summary>Reads a file.</summary>
    /// <exception cref="TokenizerFileException">The file is damaged, or another kind of tokenizer.</exception>
    public static TokenizerJsonFile Read(string path)
    {
        var file = new TokenizerJsonFile(path);
        try
        {
            using var document = JsonDocument.Parse(File.ReadAllBytes(path));
            file.ReadRoot(document.RootElement);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new TokenizerFileException(path, $"cannot be read ({e.Message}).", "Check the path and its permissions.", e);
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException or KeyNotFoundException or FormatException)
        {
            throw new TokenizerFileException(path, $"is damaged or no tokenizer.json ({e.Message}).", "Copy it again from its checkpoint.", e);
        }
        return file;
    }

    private void ReadRoot(JsonElement root)
    {
        foreach (var token in root.GetProperty("added_tokens").EnumerateArray())
        {
            AddedTokens.Add(new AddedToken(
                token.GetProperty("content").GetString()!, token.GetProperty("id").GetInt32(), token.GetProperty("special").GetBoolean(),
                token.GetProperty("lstrip").GetBoolean(), token.GetProperty("rstrip").GetBoolean(), token.TryGetProperty("normalized", out var normalized) && normalized.GetBoolean()));
        }
        bool byteLevel = ReadSpaces(Optional(root, "normalizer"), Optional(root, "pre_tokenizer"));
        ReadModel(root.GetProperty("model"), byteLevel);
        ReadPostProcessor(Optional(root, "post_processor"));
    }

    private bool ReadSpaces(JsonElement? normalizer, JsonElement? preTokenizer)
    {
        if (preTokenizer is { } split)
        {
            string type = TypeOf(split);
            if (normalizer is not null) throw Fail($"has a normalizer beside the pre_tokenizer {type}.", KindStep);
            if (type == "ByteLevel")
            {
                if (split.GetProperty("add_prefix_space").GetBoolean()) throw Fail("has a ByteLevel pre_tokenizer that adds a space.", KindStep);
                return true;
            }
            if (type != "Metaspace") throw Fail($"has the pre_tokenizer {type}.", KindStep);
            if (split.TryGetProperty("split", out var splits) && splits.GetBoolean()) throw Fail("has a Metaspace that splits.", KindStep);
            string scheme = split.TryGetProperty("prepend_scheme", out var s) ? s.GetString()! : "always";
            Behavior = scheme switch
            {
                "first" => TokenizerBehavior.Transformers5,
                "always" => TokenizerBehavior.Transformers5Legacy,
                _ => throw Fail($"has a Metaspace with the prepend_scheme {scheme}.", KindStep),
            };
            return false;
        }
        var parts = normalizer is { } n && TypeOf(n) == "Sequence" ? [.. n.GetProperty("normalizers").EnumerateArray()] : new List<JsonElement>();
        bool prepends = parts.Count == 2 && TypeOf(parts[0]) == "Prepend" && TypeOf(parts[1]) == "Replace"
            && parts[0].GetProperty("prepend").GetString() == "\u2581" && parts[1].GetProperty("content").GetString() == "\u2581";
        if (!prepends) throw Fail("has another normalizer than LLaMA's (prepend and replace the space).", KindStep);
        return false;
    }

    private void ReadModel(JsonElement model, bool byteLevel)
    {
        string type = Optional(model, "type")?.GetString() ?? "BPE";
        if (type != "BPE") throw Fail($"holds a model of the type {type}.", KindStep);
        var ids = model.GetProperty("vocab").EnumerateObject().ToDictionary(p => p.Name, p => p.Value.GetInt32(), StringComparer.Ordinal);
        int size = ids.Values.Append(-1).Max() + 1;
        var pieces = new string[size];
        Array.Fill(pieces, "");
        foreach (var (text, id) in ids) pieces[id] = text;

        var merges = new List<(int, int, int)>();
        foreach (var merge in model.GetProperty("merges").EnumerateArray())
        {
            var (left, right) = ReadMerge(merge);
            if (!ids.TryGetValue(left, out int l) || !ids.TryGetValue(right, out int r) || !ids.TryGetValue(left + right, out int joined))
                throw Fail($"has the merge '{left} {right}', whose parts or result are not in its vocabulary.", "Copy it again from its checkpoint.");
            merges.Add((l, r, joined));
        }
        Model = new BpeModel(pieces, Characters(ids), MergeTables.FromRanked(merges))
        {
            ByteIds = byteLevel ? [] : ByteIds(ids),
            IsByteLevel = byteLevel,
        };
    }

    private (string Left, string Right) ReadMerge(JsonElement merge)
    {
        if (merge.ValueKind == JsonValueKind.Array) return (merge[0].GetString()!, merge[1].GetString()!);
        string text = merge.GetString()!;
        int space = text.IndexOf(' ', StringComparison.Ordinal);
        if (space <= 0) throw Fail($"has the merge '{text}', which is no pair.", "Copy it again from its checkpoint.");
        return (text[..space], text[(space + 1)..]);
    }

    private static Dictionary<int, int> Characters(Dictionary<string, int> ids)
    {
        var characters = new Dictionary<int, int>();
        foreach (var (text, id) in ids)
        {
            if (text.Length is 0 or > 2) continue;
            int length = char.IsSurrogatePair(text, 0) ? 2 : 1;
            if (text.Length == length) characters[char.ConvertToUtf32(text, 0)] = id;
        }
        return characters;
    }

    private int[] ByteIds(Dictionary<string, int> ids)
    {
        var bytes = new int[256];
        for (int b = 0; b < 256; b++)
        {
            if (!ids.TryGetValue($"<0x{b:X2}>", out bytes[b]))
                throw Fail($"has no byte piece <0x{b:X2}>.", "Only models with byte fallback are supported.");
        }
        return bytes;
    }

    private void ReadPostProcessor(JsonElement? processor)
    {
        if (processor is not { } template || TypeOf(template) == "ByteLevel") return;
        if (TypeOf(template) != "TemplateProcessing") throw Fail($"has the post_processor {TypeOf(template)}.", KindStep);
        var single = template.GetProperty("single");
        if (single.GetArrayLength() > 0 && single[0].TryGetProperty("SpecialToken", out var first)) FirstToken = first.GetProperty("id").GetString();
    }

    private static string TypeOf(JsonElement component) => component.GetProperty("type").GetString()!;

    private static JsonElement? Optional(JsonElement parent, string name)
        => parent.TryGetProperty(name, out var value) && value.ValueKind != JsonValueKind.Null ? value : null;

    private TokenizerFileException Fail(string reason, string next) => new(_path, reason, next);
}
