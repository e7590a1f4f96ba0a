using System.Text.Json;
using Peft.Testing;
using Xunit;

namespace Peft.Llava.Tests.Text;

public sealed class LabelGoldenTests
{
    public static IEnumerable<TheoryDataRow<string>> Cases() => Goldens.Rows(TextGoldens.Area, c => c.Kind == "labels");

    [Theory, Trait(Goldens.Trait, TextGoldens.Area), MemberData(nameof(Cases))]
    public void Labels_by_spans_supervise_what_is_recorded(string folder) => Check(folder, LabelMode.Spans, CheckSpans);

    [Theory, Trait(Goldens.Trait, TextGoldens.Area), MemberData(nameof(Cases))]
    public void Labels_as_LLaVA_counts_them_equal_its_own(string folder) => Check(folder, LabelMode.LlavaExact, CheckExact);

    private static void Check(string folder, LabelMode mode, Action<JsonElement, List<LabeledText>, int, List<string>> check)
    {
        var golden = new GoldenCase(folder);
        var template = Templates.ByName(golden.Json.GetProperty("template").GetString()!);
        var rows = TextGoldens.Rows(golden);
        var failures = new List<string>();
        foreach (var row in rows)
        {
            var builder = new LabelBuilder(Tokenizer(golden, row), template, mode);
            bool hasImage = row.GetProperty("has_image").GetBoolean();
            var sources = row.GetProperty("sources").EnumerateArray().Select(s => (IReadOnlyList<ConversationTurn>)Turns(s)).ToList();
            if (row.GetProperty("multimodal") is { ValueKind: JsonValueKind.Object } multimodal)
                sources = [.. sources.Select(s => MultimodalText.Prepare(s, template, multimodal.GetProperty("mm_use_im_start_end").GetBoolean()))];
            if (row.GetProperty("peer_error") is { ValueKind: JsonValueKind.String } error)
            {
                CheckError(error.GetString()!, mode, () => [.. sources.Select(s => builder.Build(s, hasImage))]);
                continue;
            }
            if (row.GetProperty("sources_after_multimodal") is { ValueKind: JsonValueKind.Array } after)
                Assert.Equal(after.EnumerateArray().SelectMany(Turns), sources.SelectMany(s => s));
            var results = sources.Select(s => builder.Build(s, hasImage)).ToList();
            CheckText(row, results, builder.Tokenizer.PadId ?? -1, failures);
            check(row, results, builder.Tokenizer.PadId ?? -1, failures);
        }
        TextGoldens.AssertNone(failures, rows.Count);
    }

    /// <summary>What stops the peer stops us, unless only its own way of working stopped it.</summary>
    private static void CheckError(string error, LabelMode mode, Func<List<LabeledText>> build)
    {
        if (error.StartsWith("RuntimeError", StringComparison.Ordinal))            // it cannot stack conversations of different lengths
            Assert.NotEqual(1, build().Select(r => r.Ids.Count).Distinct().Count());
        else if (error.StartsWith("AttributeError", StringComparison.Ordinal) && mode == LabelMode.Spans)
            Assert.NotEmpty(build());                                               // it asks a fast tokenizer whether it is legacy
        else
            Assert.Matches("^The template '[a-z0-9_]+' cannot write the conversation: (turn \\d+ is from '\\w+'( where '\\w+' should speak)?|its first message is empty"
                + "|its first turn has no <image>|it has \\d+ turns)\\. [A-Z][^.]+\\.$", Assert.Throws<ConversationException>(build).Message);
    }

    private static void CheckText(JsonElement row, List<LabeledText> results, int pad, List<string> failures)
    {
        for (int i = 0; i < results.Count; i++)
        {
            string prompt = row.GetProperty("prompts")[i].GetString()!;
            if (results[i].Prompt.Text != prompt) failures.Add($"{Name(row)}: expected '{prompt}', got '{results[i].Prompt.Text}'");
            int[] ids = TextGoldens.Ints(row.GetProperty("input_ids")[i]);
            // Several conversations at once are padded to the longest.
            var got = results[i].Ids.Concat(Enumerable.Repeat(pad, Math.Max(0, ids.Length - results[i].Ids.Count))).ToArray();
            if (!got.SequenceEqual(ids)) failures.Add($"{Name(row)}: expected {TextGoldens.Show(ids)}, got {TextGoldens.Show(got)}");
        }
    }

    private static void CheckSpans(JsonElement row, List<LabeledText> results, int pad, List<string> failures)
    {
        for (int i = 0; i < results.Count; i++)
        {
            var spans = row.GetProperty("spans_utf16")[i].EnumerateArray().Select(s => new TextSpan(s[0].GetInt32(), s[1].GetInt32()));
            if (!spans.SequenceEqual(results[i].Prompt.Supervised))
                failures.Add($"{Name(row)}: expected spans {string.Join(" ", spans)}, got {string.Join(" ", results[i].Prompt.Supervised)}");
            if (row.GetProperty("span_supervised")[i].ValueKind == JsonValueKind.Null) continue;     // the recorder could not align the ids
            CompareRuns(row, "span_supervised", i, results[i], failures);
        }
    }

    private static void CheckExact(JsonElement row, List<LabeledText> results, int pad, List<string> failures)
    {
        for (int i = 0; i < results.Count; i++) CompareRuns(row, "supervised", i, results[i], failures);
        var warnings = row.GetProperty("warnings").EnumerateArray().Select(w => w.GetString()!);
        var got = results.Where(r => r.Mismatch is not null).Select(r => r.Mismatch!.ToString());
        if (!warnings.SequenceEqual(got)) failures.Add($"{Name(row)}: expected '{string.Join("; ", warnings)}', got '{string.Join("; ", got)}'");
    }

    private static void CompareRuns(JsonElement row, string field, int i, LabeledText result, List<string> failures)
    {
        var expected = row.GetProperty(field)[i].EnumerateArray().Select(r => (r[0].GetInt32(), r[1].GetInt32())).ToList();
        var got = Runs(result.Labels);
        if (!expected.SequenceEqual(got)) failures.Add($"{Name(row)} {field}: expected {string.Join(" ", expected)}, got {string.Join(" ", got)}");
        Assert.All(result.Labels.Zip(result.Ids), x => Assert.True(x.First == LabelBuilder.Ignored || x.First == x.Second));
    }

    private static List<(int, int)> Runs(IReadOnlyList<int> labels)
    {
        var runs = new List<(int Start, int End)>();
        for (int i = 0; i < labels.Count; i++)
        {
            if (labels[i] == LabelBuilder.Ignored) continue;
            if (runs.Count > 0 && runs[^1].End == i) runs[^1] = (runs[^1].Start, i + 1);
            else runs.Add((i, i + 1));
        }
        return runs;
    }

    private static LlamaTokenizer Tokenizer(GoldenCase golden, JsonElement row)
    {
        var tokenizer = TextGoldens.LabelTokenizer(golden, row.GetProperty("tokenizer").GetString()!)
            .WithModelMaxLength(row.GetProperty("model_max_length").GetInt32());
        bool padIsUnknown = golden.Json.GetProperty("pad").GetString() == "unk";
        tokenizer = tokenizer.WithPadToken(padIsUnknown ? tokenizer.TokenOf(tokenizer.UnknownId!.Value) : "[PAD]");
        bool startEnd = row.GetProperty("multimodal") is { ValueKind: JsonValueKind.Object } m && m.GetProperty("mm_use_im_start_end").GetBoolean();
        return startEnd ? tokenizer.WithAddedTokens([MultimodalText.ImageStart, MultimodalText.ImageEnd]) : tokenizer;
    }

    private static List<ConversationTurn> Turns(JsonElement source)
        => [.. source.EnumerateArray().Select(t => new ConversationTurn(t.GetProperty("from").GetString()!, t.GetProperty("value").GetString()!))];

    private static string Name(JsonElement row)
        => $"{row.GetProperty("id").GetString()} ({row.GetProperty("tokenizer").GetString()}, {row.GetProperty("multimodal").GetRawText()}, "
            + $"{row.GetProperty("model_max_length").GetInt32()})";
}
