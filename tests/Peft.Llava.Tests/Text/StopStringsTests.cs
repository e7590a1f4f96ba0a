using System.Text.Json;
using Peft.Testing;
using Xunit;

namespace Peft.Llava.Tests.Text;

public sealed class StopStringsTests
{
    public static IEnumerable<TheoryDataRow<string>> Cases() => Goldens.Rows(TextGoldens.Area, c => c.Kind == "stopping");

    [Theory, Trait(Goldens.Trait, TextGoldens.Area), MemberData(nameof(Cases))]
    public void Stops_where_LLaVA_stops(string folder)
    {
        var golden = new GoldenCase(folder);
        var rows = TextGoldens.Rows(golden);
        var failures = new List<string>();
        foreach (var row in rows)
        {
            var stop = Stop(golden, row, row.GetProperty("tokenizer").GetString()!, StopSearch.LlavaExact);
            Assert.Equal(row.GetProperty("max_keyword_len").GetInt32(), stop.LongestKeyword);
            int[] prompt = TextGoldens.Ints(row.GetProperty("prompt_ids")), generated = TextGoldens.Ints(row.GetProperty("generated_ids"));
            int from = row.GetProperty("from").GetInt32();
            bool[] expected = [.. row.GetProperty("stops").EnumerateArray().Select(s => s.GetBoolean())];
            bool[] got = [.. Enumerable.Range(from, expected.Length).Select(n => stop.ShouldStop([.. prompt, .. generated.Take(n)], prompt.Length))];
            if (!expected.SequenceEqual(got)) failures.Add($"{row.GetProperty("what").GetString()}: expected {string.Join(" ", expected)}, got {string.Join(" ", got)}");
        }
        CheckBatch(golden, failures);
        TextGoldens.AssertNone(failures, rows.Count);
    }

    [Theory, Trait(Goldens.Trait, TextGoldens.Area), MemberData(nameof(Cases))]
    public void Searching_the_text_finds_every_stop_string_that_was_generated(string folder)
    {
        var golden = new GoldenCase(folder);
        foreach (var row in TextGoldens.Rows(golden))
        {
            string name = row.GetProperty("tokenizer").GetString()!;
            var stop = Stop(golden, row, name, StopSearch.Text);
            int[] prompt = TextGoldens.Ints(row.GetProperty("prompt_ids")), generated = TextGoldens.Ints(row.GetProperty("generated_ids"));
            var tokenizer = TextGoldens.LabelTokenizer(golden, name);
            for (int n = 0; n <= generated.Length; n++)
            {
                string text = tokenizer.Decode(generated[..n]);
                bool ends = stop.Keywords.Any(k => text.Contains(k, StringComparison.Ordinal))
                    && !stop.Keywords.Any(k => n > 0 && tokenizer.Decode(generated[..(n - 1)]).Contains(k, StringComparison.Ordinal));
                if (ends) Assert.True(stop.ShouldStop([.. prompt, .. generated[..n]], prompt.Length), $"{row.GetProperty("what")} at {n}");
                if (n == 0) Assert.False(stop.ShouldStop(prompt, prompt.Length));
            }
        }
    }

    private static void CheckBatch(GoldenCase golden, List<string> failures)
    {
        var batch = golden.Json.GetProperty("batch");
        var stop = Stop(golden, batch, "llama", StopSearch.LlavaExact);
        int[] prompt = TextGoldens.Ints(batch.GetProperty("prompt_ids"));
        int[][] generated = [.. batch.GetProperty("generated_ids").EnumerateArray().Select(TextGoldens.Ints)];
        int n = 0;
        foreach (var expected in batch.GetProperty("stops").EnumerateArray())
        {
            n++;
            bool all = generated.All(g => stop.ShouldStop([.. prompt, .. g.Take(n)], prompt.Length));
            if (all != expected.GetBoolean()) failures.Add($"batch after {n}: expected {expected}, got {all}");
        }
    }

    private static StopStrings Stop(GoldenCase golden, JsonElement row, string tokenizer, StopSearch search)
        => new(TextGoldens.LabelTokenizer(golden, tokenizer), [.. row.GetProperty("keywords").EnumerateArray().Select(k => k.GetString()!)], search);
}
