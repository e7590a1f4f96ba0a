using Xunit;

namespace Peft.Llava.Tests.Data;

public sealed class RecordChecksTests : IDisposable
{
    private readonly TinyData _data = new();

    public void Dispose() => _data.Dispose();

    [Theory]
    [InlineData("", """{"from": "bot", "value": "x"}""", RecordProblem.UnknownSpeaker, "turn 1 is from 'bot' (speakers are 'human' and 'gpt')")]
    [InlineData("", """{"from": "gpt", "value": " \u001c"}""", RecordProblem.Empty, "turn 1, of 'gpt', is empty (give it text, or remove the record)")]
    [InlineData("", """{"from": "human", "value": "x"}""", RecordProblem.SpeakerOrder,
        "turns 0 and 1 are both from 'human' (speakers must alternate: join or remove turns)")]
    [InlineData("a.png", """{"from": "gpt", "value": "x"}""", RecordProblem.PlaceholderCount,
        "it has 1 image(s) but 0 <image> placeholder(s) (write one placeholder per image, or correct its image field)")]
    public void A_conversation_that_cannot_be_trained_on_is_named_unless_checks_are_off(string image, string turn, RecordProblem kind, string problem)
    {
        string field = image.Length > 0 ? $"\"image\": \"{image}\", " : "";
        string path = _data.File("train.json",
            $$"""[{"id": "b1", {{field}}"conversations": [{"from": "human", "value": "q"}, {{turn}}]}, {"conversations": [{"from": "gpt", "value": "y"}]}]""");
        var e = Assert.Throws<DataFileException>(() => Read(path, new DataOptions()));
        Assert.Equal($"{path}: 1 record(s) cannot be used. Correct or remove them:\n  b1 (record 0): {problem}", e.Message);
        Assert.Equal((kind, DataFileFault.Records), (e.Faults[0].Kind, e.Fault));
        Assert.Equal(2, Read(path, new DataOptions { Records = RecordChecks.None }).Count);
        Assert.Equal(2, Read(path, DataOptions.LlavaExact).Count);
        if (kind == RecordProblem.PlaceholderCount) Assert.Equal(2, Read(path, new DataOptions { CheckPlaceholders = false }).Count);
    }

    [Fact]
    public void Equal_ids_are_refused_where_that_is_asked_for()
    {
        const string turns = """ "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}""";
        string path = _data.File("train.json", $$"""[{"id": 5,{{turns}}, {"id": "6",{{turns}}, {"id": "5",{{turns}}]""");
        Assert.Equal(3, Read(path, new DataOptions()).Count);
        var e = Assert.Throws<DataFileException>(() => Read(path, new DataOptions { Records = RecordChecks.All }));
        Assert.EndsWith("\n  5 (record 2): record 0 has the same id (give each its own, or leave ids out)", e.Message);
        Assert.Equal(RecordProblem.DuplicateId, e.Faults[0].Kind);
    }

    [Fact]
    public void A_first_turn_of_the_model_and_several_placeholders_for_one_image_are_allowed()
    {
        string path = _data.File("train.json", """
            [{"conversations": [{"from": "gpt", "value": "Hi"}, {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
             {"image": "x.png", "conversations": [{"from": "human", "value": "<image> <image>"}, {"from": "gpt", "value": "a"}]}]
            """);
        Assert.Equal(2, Read(path, new DataOptions()).Count);
    }

    private static LlavaDataset Read(string path, DataOptions options) => LlavaDataset.FromJson(path, null, TinyData.Processor, options);
}
