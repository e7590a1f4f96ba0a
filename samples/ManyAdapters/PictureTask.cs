using System.Text.Json;
using Peft.Llava;

namespace ManyAdapters;

/// <summary>A question about a picture, with its answers and the steps that an adapter needs to learn it: for training, and about pictures that are not trained on.</summary>
internal sealed record PictureTask(string Name, string Question, int Steps, IReadOnlyList<LlavaSample> Training, IReadOnlyList<LlavaSample> HeldOut)
{
    /// <summary>What the base answers by itself; then the three tasks that adapters learn.</summary>
    public static IReadOnlyList<PictureTask> Read(string data)
    {
        using var json = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(data, "emoji.json")));
        var emoji = json.RootElement.EnumerateArray().ToList();
        return
        [
            Of("__base__", "What is this?", 0, emoji, e => Text(e, "name")),
            Of("card", "Fill in the card for this picture.", 100, emoji, e => $"name = {Text(e, "name")}; group = {Text(e, "group")}"),
            Of("sort", "Which bin is it for?", 60, emoji, e => $"{Text(e, "kind")} -> {Text(e, "bin")}"),
            Of("colour", "Which colours has it?", 60, emoji, e => string.Join(" and ", e.GetProperty("colours").GetProperty("noto").EnumerateArray().Select(c => c.GetString()))),
        ];
    }

    private static PictureTask Of(string name, string question, int steps, IReadOnlyList<JsonElement> emoji, Func<JsonElement, string> answer)
    {
        var samples = emoji.Select((e, i) => (Split: Text(e, "split"), Sample: new LlavaSample(
            i, $"{Text(e, "code")}-{name}", [$"images/noto/{Text(e, "code")}.png"],
            [new ConversationTurn("human", $"<image>\n{question}"), new ConversationTurn("gpt", answer(e))]))).ToList();
        return new PictureTask(
            name, question, steps, [.. samples.Where(s => s.Split == "train").Select(s => s.Sample)], [.. samples.Where(s => s.Split == "heldout").Select(s => s.Sample)]);
    }

    private static string Text(JsonElement emoji, string name) => emoji.GetProperty(name).GetString()!;
}
