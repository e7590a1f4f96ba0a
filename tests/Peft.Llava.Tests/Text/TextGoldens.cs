using System.Collections.Concurrent;
using System.Text.Json;
using Peft.Testing;
using Xunit;

namespace Peft.Llava.Tests.Text;

/// <summary>What the golden tests of the area <c>text</c> share: tokenizers by the cases' names, rows, and a count of what differs.</summary>
internal static class TextGoldens
{
    public const string Area = "text";

    private static readonly ConcurrentDictionary<(string Path, TokenizerBehavior?), LlamaTokenizer> Loaded = new();

    public static IReadOnlyList<JsonElement> Rows(GoldenCase golden, string field = "rows")
        => [.. File.ReadLines(golden.PathOf(golden.Json.GetProperty(field).GetString()!)).Where(line => line.Length > 0)
            .Select(line => JsonDocument.Parse(line).RootElement)];

    public static TokenizerBehavior Behavior(string variant) => variant switch
    {
        "slow" or "slow-no-bos" => TokenizerBehavior.SentencePiece,
        "slow-legacy" => TokenizerBehavior.SentencePieceLegacy,
        "fast" => TokenizerBehavior.Fast,
        "v5" => TokenizerBehavior.Transformers5,
        "v5-legacy" => TokenizerBehavior.Transformers5Legacy,
        _ => throw new ArgumentException($"unknown tokenizer variant {variant}"),
    };

    /// <summary>"llama", "tiny", "bytes" (what follows a blank is a remark), with a behaviour where the kind knows one.</summary>
    public static LlamaTokenizer Tokenizer(GoldenCase golden, string name, TokenizerBehavior? behavior)
    {
        string key = name.Split(' ', ';')[0];
        return key switch
        {
            "llama" => Loaded.GetOrAdd((LlamaModel(golden), behavior),
                k => LlamaTokenizer.FromSentencePiece(k.Path, new TokenizerOptions { Behavior = k.Item2 })),
            _ => Loaded.GetOrAdd((Path.Combine(golden.AreaFolder, "tokenizers", key), key == "bytes" ? null : behavior),
                k => LlamaTokenizer.FromFolder(k.Path, new TokenizerOptions { Behavior = k.Item2 })),
        };
    }

    /// <summary>"llama", "llama-legacy", "bytes", "…+chatml" and "slow", "slow-legacy", as the labels and data sets name them.</summary>
    public static LlamaTokenizer LabelTokenizer(GoldenCase golden, string name)
    {
        string[] parts = name.Split('+');
        var tokenizer = parts[0] switch
        {
            "llama" or "slow" => Tokenizer(golden, "llama", TokenizerBehavior.SentencePiece),
            "llama-legacy" or "slow-legacy" => Tokenizer(golden, "llama", TokenizerBehavior.SentencePieceLegacy),
            "tiny" => Tokenizer(golden, "tiny", TokenizerBehavior.SentencePiece),
            "tiny-legacy" => Tokenizer(golden, "tiny", TokenizerBehavior.SentencePieceLegacy),
            _ => Tokenizer(golden, parts[0], null),
        };
        return parts.Contains("chatml") ? tokenizer.WithAddedTokens(["<|im_start|>", "<|im_end|>"]) : tokenizer;
    }

    public static int[] Ints(JsonElement array) => [.. array.EnumerateArray().Select(x => x.GetInt32())];

    /// <summary>The row's field for a variant: its own entry under <c>differs</c>, or the reference.</summary>
    public static JsonElement Expected(JsonElement row, string field, string variant)
        => row.TryGetProperty("differs", out var differs) && differs.TryGetProperty(variant, out var own) ? own : row.GetProperty(field);

    public static void AssertNone(List<string> failures, int of)
        => Assert.True(failures.Count == 0, $"{failures.Count} of {of} differ:\n{string.Join('\n', failures.Take(8))}");

    public static string Show(IEnumerable<int> ids) => $"[{string.Join(", ", ids.Take(40))}]";

    private static string LlamaModel(GoldenCase golden)
        => Goldens.Roots.Prepend(Path.GetDirectoryName(golden.AreaFolder)!)
            .Select(root => Path.Combine(root, "llama-tokenizer", "tokenizer.model")).First(File.Exists);
}
