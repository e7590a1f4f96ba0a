using System.Text.Json.Nodes;

namespace Peft.Llava;

/// <summary>
/// Makes the <c>tokenizer.json</c> of a <c>tokenizer.model</c>, in the form that transformers 4 gives it and every version reads: the normalizer puts a mark before
/// each piece of text, merges are texts in order of their pieces' scores.
/// </summary>
internal static class FastTokenizerFile
{
    /// <summary>Makes the document.</summary>
    /// <param name="pieces">The model's pieces, by id.</param>
    /// <param name="added">The entries of <c>added_tokens</c>; each is used as it is.</param>
    /// <param name="first">The token that goes before every text and its id, or null.</param>
    /// <param name="last">The one that goes after it, or null.</param>
    /// <param name="unknown">The unknown token, or null.</param>
    public static JsonObject Make(IReadOnlyList<SentencePiece> pieces, IEnumerable<JsonObject> added, (string Content, int Id)? first, (string Content, int Id)? last, string? unknown)
    {
        string mark = BpeModel.SpaceMark.ToString();
        var vocabulary = new JsonObject();
        for (int id = 0; id < pieces.Count; id++) vocabulary.TryAdd(pieces[id].Text, id);
        return new JsonObject
        {
            ["version"] = "1.0",
            ["truncation"] = null,
            ["padding"] = null,
            ["added_tokens"] = new JsonArray([.. added]),
            ["normalizer"] = new JsonObject
            {
                ["type"] = "Sequence",
                ["normalizers"] = new JsonArray(new JsonObject { ["type"] = "Prepend", ["prepend"] = mark }, Replace(" ", mark)),
            },
            ["pre_tokenizer"] = null,
            ["post_processor"] = PostProcessor(first, last),
            ["decoder"] = new JsonObject
            {
                ["type"] = "Sequence",
                ["decoders"] = new JsonArray(
                    Replace(mark, " "), new JsonObject { ["type"] = "ByteFallback" }, new JsonObject { ["type"] = "Fuse" },
                    new JsonObject { ["type"] = "Strip", ["content"] = " ", ["start"] = 1, ["stop"] = 0 }),
            },
            ["model"] = new JsonObject
            {
                ["type"] = "BPE",
                ["dropout"] = null,
                ["unk_token"] = unknown,
                ["continuing_subword_prefix"] = null,
                ["end_of_word_suffix"] = null,
                ["fuse_unk"] = true,
                ["byte_fallback"] = true,
                ["vocab"] = vocabulary,
                ["merges"] = MergeTables.RankedPairs(pieces, MergeOrder.ScoreThenIds).Select(m => $"{m.Left} {m.Right}").ToJsonArray(),
            },
        };
    }

    private static JsonObject Replace(string what, string by)
        => new() { ["type"] = "Replace", ["pattern"] = new JsonObject { ["String"] = what }, ["content"] = by };

    private static JsonObject PostProcessor((string Content, int Id)? first, (string Content, int Id)? last)
    {
        var special = new JsonObject();
        foreach (var (content, id) in new[] { first, last }.OfType<(string Content, int Id)>())
            special.TryAdd(content, new JsonObject { ["id"] = content, ["ids"] = new JsonArray(id), ["tokens"] = new JsonArray(content) });
        return new JsonObject
        {
            ["type"] = "TemplateProcessing",
            ["single"] = new JsonArray([.. Text("A", 0)]),
            ["pair"] = new JsonArray([.. Text("A", 0), .. Text("B", 1)]),
            ["special_tokens"] = special,
        };

        IEnumerable<JsonNode> Text(string name, int type)
        {
            if (first is { } before) yield return Part("SpecialToken", before.Content, type);
            yield return Part("Sequence", name, type);
            if (last is { } after) yield return Part("SpecialToken", after.Content, type);
        }

        static JsonObject Part(string kind, string name, int type) => new() { [kind] = new JsonObject { ["id"] = name, ["type_id"] = type } };
    }
}
