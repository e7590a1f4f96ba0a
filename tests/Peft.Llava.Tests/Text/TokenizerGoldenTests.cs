using System.Text.Json;
using Peft.Testing;
using Xunit;

namespace Peft.Llava.Tests.Text;

public sealed class TokenizerGoldenTests
{
    public static IEnumerable<TheoryDataRow<string>> Cases(string kind) => Goldens.Rows(TextGoldens.Area, c => c.Kind == kind);

    [Theory, Trait(Goldens.Trait, TextGoldens.Area), MemberData(nameof(Cases), "encode")]
    public void Encodes_as_recorded(string folder)
    {
        var golden = new GoldenCase(folder);
        string name = golden.Json.GetProperty("tokenizer").GetString()!;
        var rows = TextGoldens.Rows(golden);
        var failures = new List<string>();
        foreach (var variant in golden.Json.GetProperty("variants").EnumerateObject())
        {
            var tokenizer = TextGoldens.Tokenizer(golden, name, TextGoldens.Behavior(variant.Name));
            foreach (var row in rows) CheckEncoding(tokenizer, row, variant.Name, variant.Name, failures);
        }
        TextGoldens.AssertNone(failures, rows.Count);
    }

    [Theory, Trait(Goldens.Trait, TextGoldens.Area), MemberData(nameof(Cases), "tokenizers")]
    public void Every_folder_gives_the_ids_of_its_kind(string folder)
    {
        var golden = new GoldenCase(folder);
        var failures = new List<string>();
        foreach (var entry in golden.Json.GetProperty("folders").EnumerateObject())
        {
            string path = golden.PathOf(entry.Name);
            if (!Directory.Exists(path)) continue;                       // left out of this root, as the case's note says
            var tokenizer = LlamaTokenizer.FromFolder(path);
            string variant = entry.Name.EndsWith("fast-old", StringComparison.Ordinal) ? "fast"
                : entry.Name.EndsWith("fast-new", StringComparison.Ordinal) ? "v5" : "slow";
            var rows = new GoldenCase(Path.Combine(golden.AreaFolder, "encode-" + entry.Name.Split('-')[0]));
            foreach (var row in TextGoldens.Rows(rows)) CheckEncoding(tokenizer, row, variant, entry.Name, failures);
        }
        TextGoldens.AssertNone(failures, 0);
    }

    /// <summary>
    /// tokenizers' added_vocabulary.rs: tokens that are not normalized are cut out first, each piece is normalized (a mark before it, a mark for each space), and the
    /// others are sought there in their own normalized form, so <c>glued&lt;word&gt;</c> holds none.
    /// </summary>
    [Theory, Trait("Fault", "files-7")]
    [InlineData("glued<word>", "glued<word>", null, null)]
    [InlineData("<word>", null, 0, null)]
    [InlineData("a <word>b", "a", 0, "b")]
    [InlineData("a<word> <word>b", "a<word>", 0, "b")]
    [InlineData("a <word>  b", "a", 0, "\u2581 \u2581b")]
    [InlineData("a </s><word>b", "a </s>", 0, "b")]
    [InlineData("a <two words>b", "a", 1, "b")]
    public void The_fast_tokenizer_seeks_a_normalized_token_in_the_normalized_text(string text, string? before, int? token, string? after)
    {
        string source = Path.Combine(Goldens.Roots[0], TextGoldens.Area, "tokenizers", "tiny-fast-old");
        var plain = LlamaTokenizer.FromFolder(source);
        Assert.Equal(TokenizerBehavior.Fast, plain.Behavior);
        var tokenizer = plain.WithAddedTokens(["<word>", "<two words>"], special: false);
        var expected = plain.Encode(before ?? "").ToList();
        if (token is { } number) expected.Add(plain.Count + number);
        if (after is not null) expected.AddRange(after.Split(' ').Select(piece => plain.IdOf(piece)!.Value));
        Assert.Equal(expected, tokenizer.Encode(text));
        using var saved = new TemporaryFolder();
        tokenizer.Save(saved.Path);
        Assert.Equal(expected, LlamaTokenizer.FromFolder(saved.Path).Encode(text));
        // A special one is not normalized, and found anywhere.
        Assert.Contains(plain.Count, plain.WithAddedTokens(["<word>"]).Encode("glued<word>"));
    }

    [Theory, Trait(Goldens.Trait, TextGoldens.Area), MemberData(nameof(Cases), "decode")]
    public void Decodes_as_recorded(string folder)
    {
        var golden = new GoldenCase(folder);
        string name = golden.Json.GetProperty("tokenizer").GetString()!;
        var rows = TextGoldens.Rows(golden);
        var failures = new List<string>();
        foreach (string variant in new[] { "slow", "slow-legacy", "fast", "v5", "v5-legacy" })
        {
            var tokenizer = TextGoldens.Tokenizer(golden, name, TextGoldens.Behavior(variant));
            foreach (var row in rows)
            {
                var expected = TextGoldens.Expected(row, "text", variant);
                if (expected.ValueKind != JsonValueKind.String) continue;    // an error of the peer's (an id beyond its vocabulary)
                int[] ids = TextGoldens.Ints(row.GetProperty("ids"));
                var options = new DecodeOptions
                {
                    SkipSpecialTokens = row.GetProperty("skip_special_tokens").GetBoolean(),
                    CleanUpSpaces = row.GetProperty("clean_up").GetBoolean(),
                    SpacesBetweenAddedTokens = golden.Json.GetProperty("spaces_between_special_tokens").GetBoolean(),
                };
                string text = tokenizer.Decode(ids, options);
                if (text != expected.GetString())
                    failures.Add($"{variant} {TextGoldens.Show(ids)} {options}: expected '{expected.GetString()}', got '{text}'");
            }
        }
        TextGoldens.AssertNone(failures, rows.Count);
    }

    [Theory, Trait(Goldens.Trait, TextGoldens.Area), MemberData(nameof(Cases), "added")]
    public void Added_tokens_are_found_and_decoded(string folder)
    {
        var golden = new GoldenCase(folder);
        string name = golden.Json.GetProperty("tokenizer").GetString()!;
        string[] order = [.. golden.Json.GetProperty("order").EnumerateArray().Select(x => x.GetString()!)];
        var rows = TextGoldens.Rows(golden);
        var failures = new List<string>();
        foreach (string variant in new[] { "slow", "slow-legacy", "fast", "v5", "v5-legacy" })
        {
            var tokenizer = TextGoldens.Tokenizer(golden, name, TextGoldens.Behavior(variant)).WithAddedTokens(order);
            foreach (var id in golden.Json.GetProperty("new_ids").EnumerateObject())
                Assert.Equal(id.Value.GetInt32(), tokenizer.IdOf(id.Name));
            foreach (var row in rows)
            {
                CheckEncoding(tokenizer, row, variant, variant, failures);
                if (variant != "slow") continue;
                int[] ids = TextGoldens.Ints(row.GetProperty("ids"));
                CheckText(row.GetProperty("decoded").GetString()!, tokenizer.Decode(ids), failures);
                CheckText(row.GetProperty("decoded_skip_special").GetString()!,
                    tokenizer.Decode(ids, new DecodeOptions { SkipSpecialTokens = true }), failures);
            }
        }
        var pad = golden.Json.GetProperty("pad");
        var before = TextGoldens.Tokenizer(golden, name, TokenizerBehavior.SentencePiece);
        var padded = before.WithPadToken(pad.GetProperty("token").GetString()!);
        Assert.Equal(pad.GetProperty("id").GetInt32(), padded.PadId);
        Assert.Equal(pad.GetProperty("length_before").GetInt32(), before.Count);
        Assert.Equal(pad.GetProperty("length_after").GetInt32(), padded.Count);
        foreach (var row in TextGoldens.Rows(golden, "pad_rows")) CheckEncoding(padded, row, "slow", "pad", failures);
        TextGoldens.AssertNone(failures, rows.Count);
    }

    [Theory, Trait(Goldens.Trait, TextGoldens.Area), MemberData(nameof(Cases), "image-token")]
    public void Images_in_a_prompt_become_placeholders(string folder)
    {
        var golden = new GoldenCase(folder);
        Assert.Equal(LlamaTokenizer.ImageTokenId, golden.Json.GetProperty("image_token_index").GetInt32());
        var rows = TextGoldens.Rows(golden);
        var failures = new List<string>();
        foreach (string variant in new[] { "slow", "slow-legacy", "fast", "slow-no-bos" })
        {
            var tokenizer = TextGoldens.Tokenizer(golden, "llama", TextGoldens.Behavior(variant)).WithAddBos(variant != "slow-no-bos");
            foreach (var row in rows) CheckImages(tokenizer, row, TextGoldens.Expected(row, "ids", variant), variant, failures);
        }
        var bytes = TextGoldens.Tokenizer(golden, "bytes", null);
        foreach (var row in rows) CheckImages(bytes, row, row.GetProperty("ids_bytes"), "bytes", failures);
        TextGoldens.AssertNone(failures, rows.Count);
    }

    private static void CheckEncoding(LlamaTokenizer tokenizer, JsonElement row, string variant, string label, List<string> failures)
    {
        string text = row.GetProperty("text").GetString()!;
        int[] expected = TextGoldens.Ints(TextGoldens.Expected(row, "ids", variant));
        var got = tokenizer.Tokenize(text);
        if (!got.Ids.SequenceEqual(expected))
            failures.Add($"{label} '{text[..Math.Min(80, text.Length)]}': expected {TextGoldens.Show(expected)}, got {TextGoldens.Show(got.Ids)}");
        CheckSpans(tokenizer, text, got, label, failures);
    }

    /// <summary>The spans cover the text from left to right without a hole (blanks that an added token strips may be left out).</summary>
    private static void CheckSpans(LlamaTokenizer tokenizer, string text, TokenizedText got, string label, List<string> failures)
    {
        int end = 0;
        foreach (var span in got.Spans.Where(s => !s.IsNone))
        {
            if (span.Start > end || span.End < end || span.End > text.Length)
            {
                failures.Add($"{label} '{text[..Math.Min(80, text.Length)]}': span {span} does not go on from {end}");
                return;
            }
            end = span.End;
        }
        if (end != text.Length) failures.Add($"{label} '{text[..Math.Min(80, text.Length)]}': the spans end at {end} of {text.Length}");
    }

    private static void CheckImages(LlamaTokenizer tokenizer, JsonElement row, JsonElement expected, string label, List<string> failures)
    {
        string text = row.GetProperty("text").GetString()!;
        var got = tokenizer.TokenizeWithImages(text);
        if (!got.Ids.SequenceEqual(TextGoldens.Ints(expected)))
            failures.Add($"{label} '{text}': expected {TextGoldens.Show(TextGoldens.Ints(expected))}, got {TextGoldens.Show(got.Ids)}");
        for (int i = 0; i < got.Count; i++)
        {
            if (got.Ids[i] == LlamaTokenizer.ImageTokenId && text[got.Spans[i].Start..got.Spans[i].End] != LlamaTokenizer.ImagePlaceholder)
                failures.Add($"{label} '{text}': the span of token {i} is not the placeholder's");
        }
        CheckSpans(tokenizer, text, got, label, failures);
    }

    private static void CheckText(string expected, string got, List<string> failures)
    {
        if (expected != got) failures.Add($"expected '{expected}', got '{got}'");
    }
}
