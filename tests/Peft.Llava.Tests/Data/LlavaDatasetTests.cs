using Xunit;

namespace Peft.Llava.Tests.Data;

public sealed class LlavaDatasetTests : IDisposable
{
    private readonly TinyData _data = new();

    public void Dispose() => _data.Dispose();

    [Fact]
    public void Reads_texts_single_images_lists_and_records_without_an_id()
    {
        string path = _data.File("train.json", """
            [{"id": "a", "image": "x.png", "conversations": [{"from": "human", "value": "<image>\nHi"}, {"from": "gpt", "value": "one two"}]},
             {"id": 7, "image": ["x.png", "y.png"], "conversations": [{"from": "human", "value": "<image><image>"}]},
             {"image": null, "conversations": [{"from": "gpt", "value": "a\u3000b\u001cc"}]}]
            """);
        var dataset = LlavaDataset.FromJson(path, _data.Images, TinyData.Processor);
        Assert.Equal(["a", "7", "#2"], dataset.Samples.Select(s => s.Id));
        Assert.Equal([1, 2, 0], dataset.Samples.Select(s => s.Images.Count));
        Assert.Equal([1, 2, 0], dataset.Samples.Select(s => s.PlaceholderCount));
        Assert.Equal([132, 129, 3], dataset.Lengths);
        Assert.Equal([4, 1, -3], dataset.ModalityLengths);
        Assert.Equal(["#2", "a"], dataset.Select([2, 0]).Samples.Select(s => s.Id));
    }

    [Theory]
    [InlineData("5", "it is a number, not an object", "#0")]
    [InlineData("""{"id": "a"}""", "it has no conversations", "a")]
    [InlineData("""{"id": 3, "conversations": {}}""", "conversations is an object, not an array", "3")]
    [InlineData("""{"conversations": []}""", "conversations is empty", "#0")]
    [InlineData("""{"conversations": ["x"]}""", "turn 0 is a text, not an object", "#0")]
    [InlineData("""{"conversations": [{"from": "human"}]}""", "turn 0 has no 'value'", "#0")]
    [InlineData("""{"conversations": [{"from": "human", "value": null}]}""", "'value' of turn 0 is null, not a text", "#0")]
    [InlineData("""{"conversations": [{"from": true, "value": "x"}]}""", "'from' of turn 0 is true or false, not a text", "#0")]
    [InlineData("""{"id": "\ud83d", "conversations": [{"from": "human", "value": "\ud83d"}]}""", "'value' of turn 0 holds half of a surrogate pair", "#0")]
    [InlineData("""{"image": [1], "conversations": [{"from": "human", "value": "x"}]}""", "image is a number, not a file name or a list of them", "#0")]
    [InlineData("""{"image": "", "conversations": [{"from": "human", "value": "x"}]}""", "image is an empty file name", "#0")]
    public void A_malformed_record_is_named(string record, string problem, string id)
    {
        string path = _data.File("train.json", $"[{record}]");
        var e = Assert.Throws<DataFileException>(() => LlavaDataset.FromJson(path, null, TinyData.Processor));
        Assert.Contains($"train.json: 1 record(s) cannot be used. Correct or remove them:\n  {id} (record 0): {problem}", e.Message);
        Assert.Equal((0, id), (e.Faults[0].Index, e.Faults[0].Id));
    }

    [Fact]
    public void All_malformed_records_are_named_at_once()
    {
        string path = _data.File("train.json", $"[{string.Join(", ", Enumerable.Repeat("1", 12))}]");
        var e = Assert.Throws<DataFileException>(() => LlavaDataset.FromJson(path, null, TinyData.Processor));
        Assert.Equal(12, e.Faults.Count);
        Assert.EndsWith("\n  … and 2 more", e.Message);
    }

    [Theory]
    [InlineData("{}", "train.json: is no JSON array (")]
    [InlineData("[{}", "train.json: is no JSON array (")]
    public void A_file_that_is_no_list_is_refused(string text, string message)
    {
        string path = _data.File("train.json", text);
        Assert.Contains(message, Assert.Throws<DataFileException>(() => LlavaDataset.FromJson(path, null, TinyData.Processor)).Message);
    }

    [Fact]
    public void A_missing_file_is_named()
    {
        var e = Assert.Throws<DataFileException>(() => LlavaDataset.FromJson(Path.Combine(_data.Folder, "none.json"), null, TinyData.Processor));
        Assert.Contains("none.json: cannot be read (", e.Message);
        Assert.Contains("A data file is a JSON array of records with id, image (optional) and conversations.", e.Message);
    }
}
