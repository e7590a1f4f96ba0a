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
    [InlineData("5", "it is a number, not an object", "#0", RecordProblem.NotAnObject)]
    [InlineData("""{"id": "a"}""", "it has no conversations", "a", RecordProblem.MissingField)]
    [InlineData("""{"id": 3, "conversations": {}}""", "conversations is an object, not an array", "3", RecordProblem.WrongType)]
    [InlineData("""{"conversations": []}""", "conversations is empty", "#0", RecordProblem.Empty)]
    [InlineData("""{"conversations": ["x"]}""", "turn 0 is a text, not an object", "#0", RecordProblem.WrongType)]
    [InlineData("""{"conversations": [{"from": "human"}]}""", "turn 0 has no 'value'", "#0", RecordProblem.MissingField)]
    [InlineData("""{"conversations": [{"from": "human", "value": null}]}""", "'value' of turn 0 is null, not a text", "#0", RecordProblem.WrongType)]
    [InlineData("""{"conversations": [{"from": true, "value": "x"}]}""", "'from' of turn 0 is true or false, not a text", "#0", RecordProblem.WrongType)]
    [InlineData("""{"id": "\ud83d", "conversations": [{"from": "human", "value": "\ud83d"}]}""", "'value' of turn 0 holds half of a surrogate pair", "#0", RecordProblem.BadValue)]
    [InlineData("""{"image": [1], "conversations": [{"from": "human", "value": "x"}]}""", "image is a number, not a file name or a list of them", "#0", RecordProblem.WrongType)]
    [InlineData("""{"image": "", "conversations": [{"from": "human", "value": "x"}]}""", "image is an empty file name", "#0", RecordProblem.Empty)]
    [InlineData("""{"id": [1], "conversations": [{"from": "human", "value": "x"}]}""", "id is an array, not a text or a number", "#0", RecordProblem.WrongType)]
    public void A_malformed_record_is_named(string record, string problem, string id, RecordProblem kind)
    {
        string path = _data.File("train.json", $"[{record}]");
        var e = Assert.Throws<DataFileException>(() => LlavaDataset.FromJson(path, null, TinyData.Processor));
        Assert.Contains($"train.json: 1 record(s) cannot be used. Correct or remove them:\n  {id} (record 0): {problem}", e.Message);
        Assert.Equal((0, id, kind), (e.Faults[0].Index, e.Faults[0].Id, e.Faults[0].Kind));
        Assert.Null(e.Faults[0].Line);
    }

    [Theory, Trait("Fault", "use-2")]
    [InlineData("""{"id": "a", "conversation": []}""", "it has no conversations (the nearest key is 'conversation')")]
    [InlineData("""{"id": "a", "Conversatoins": []}""", "it has no conversations (the nearest key is 'Conversatoins')")]
    [InlineData("""{"id": "a", "messages": [{"role": "user", "content": "x"}]}""",
        "it has no conversations but messages, the form of chat services (write \"conversations\": [{\"from\": \"human\", \"value\": \"...\"}, {\"from\": \"gpt\", \"value\": \"...\"}], and the picture's file as \"image\"; read are LLaVA's JSON, JSON Lines of such records, and ScienceQA)")]
    [InlineData("""{"id": "a", "conversations": [{"from": "human", "values": "x"}]}""", "turn 0 has no 'value' (the nearest key is 'values')")]
    [InlineData("""{"id": "a", "conversations": [{"role": "user", "content": "x"}]}""", "turn 0 has no 'from' (it has role or content, the form of chat services; write from, human or gpt, and value)")]
    [InlineData("""{"id": "a", "conversations": [{"from": "human", "content": "x"}]}""", "turn 0 has no 'value' (it has role or content, the form of chat services; write from, human or gpt, and value)")]
    [InlineData("""{"id": "a", "images": "a.png", "conversations": [{"from": "human", "value": "<image> x"}, {"from": "gpt", "value": "y"}]}""",
        "it has 0 image(s) but 1 <image> placeholder(s) (write one placeholder per image, or correct its image field); it has no 'image', and the nearest key is 'images'")]
    public void A_key_that_is_probably_misspelt_and_another_form_are_named(string record, string problem)
    {
        string path = _data.File("train.json", $"[{record}]");
        Assert.EndsWith($"a (record 0): {problem}", Assert.Throws<DataFileException>(() => LlavaDataset.FromJson(path, null, TinyData.Processor)).Message, StringComparison.Ordinal);
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
    [InlineData("{}", "train.json: is no JSON array (", DataFileFault.WrongFormat)]
    [InlineData("[{} {}]", "train.json: is no JSON array (", DataFileFault.WrongFormat)]
    [InlineData(" \n", "train.json: is empty. A data file is a JSON array of records", DataFileFault.CutOff)]
    [InlineData("\ufeff[{\"conversations\": [{\"from\": \"gpt\", \"value\": \"a\"}]}, {\"conver", "train.json: ends in the middle of its list; the first 1 record(s) are whole (",
        DataFileFault.CutOff)]
    public void A_file_that_is_no_list_is_refused(string text, string message, DataFileFault fault)
    {
        string path = _data.File("train.json", text);
        var e = Assert.Throws<DataFileException>(() => LlavaDataset.FromJson(path, null, TinyData.Processor));
        Assert.Contains(message, e.Message);
        Assert.Equal((fault, path), (e.Fault, e.Path));
        if (text.EndsWith("conver", StringComparison.Ordinal)) Assert.EndsWith("Copy or write the file again.", e.Message);
    }

    [Fact]
    public void A_missing_file_is_named()
    {
        var e = Assert.Throws<DataFileException>(() => LlavaDataset.FromJson(Path.Combine(_data.Folder, "none.json"), null, TinyData.Processor));
        Assert.Contains("none.json: cannot be read (", e.Message);
        Assert.Contains("A data file is a JSON array of records with id, image (optional) and conversations.", e.Message);
    }
}
