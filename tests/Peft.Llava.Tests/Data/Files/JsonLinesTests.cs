using Xunit;

namespace Peft.Llava.Tests.Data;

public sealed class JsonLinesTests : IDisposable
{
    private const string Good = """{"id": "a", "image": "x.png", "conversations": [{"from": "human", "value": "<image>\nHi"}, {"from": "gpt", "value": "é 😀"}]}""";

    private readonly TinyData _data = new();

    public void Dispose() => _data.Dispose();

    [Fact]
    public void Reads_a_record_per_line_and_passes_over_empty_ones()
    {
        string path = _data.File("train.jsonl", $"\ufeff{Good}\r\n\n  \n{Good.Replace("\"a\"", "\"b\"")}");
        var dataset = LlavaDataset.FromJsonLines(path, _data.Images, TinyData.Processor);
        Assert.Equal([("a", 0), ("b", 1)], dataset.Samples.Select(s => (s.Id, s.Index)));
        Assert.Equal("é 😀", dataset.Samples[1].Turns[1].Value);
        Assert.Equal(["x.png"], dataset.Samples[1].Images);
    }

    [Fact]
    public void Every_malformed_line_is_named_with_its_number()
    {
        string path = _data.File("train.jsonl", $"{Good}\n\n[1]\n{{\"id\": \"c\"}}\n{Good}\n{Good[..40]}\n");
        var e = Assert.Throws<DataFileException>(() => LlavaDataset.FromJsonLines(path, null, TinyData.Processor));
        Assert.StartsWith($"{path}: 3 record(s) cannot be used. Correct or remove them:\n  #1 (record 1, line 3): it is an array, not an object\n"
            + "  c (record 2, line 4): it has no conversations\n  #4 (record 4, line 6): the line is no whole JSON record (", e.Message);
        Assert.Equal([(RecordProblem.NotAnObject, 3), (RecordProblem.MissingField, 4), (RecordProblem.NotJson, 6)], e.Faults.Select(f => (f.Kind, f.Line!.Value)));
    }

    [Fact]
    public void A_file_in_another_encoding_is_refused()
    {
        string path = Path.Combine(_data.Folder, "latin.jsonl");
        File.WriteAllBytes(path, [.. System.Text.Encoding.UTF8.GetBytes(Good + "\n"), (byte)'"', 0xe9, (byte)'"']);
        var e = Assert.Throws<DataFileException>(() => LlavaDataset.FromJsonLines(path, null, TinyData.Processor));
        Assert.Contains("latin.jsonl: is not in UTF-8, after line", e.Message);
        Assert.EndsWith("A JSON Lines file has one record a line, in UTF-8, with id, image (optional) and conversations.", e.Message);
        Assert.Equal(DataFileFault.WrongFormat, e.Fault);
    }

    [Fact]
    public void A_missing_file_is_named()
    {
        var e = Assert.Throws<DataFileException>(() => LlavaDataset.FromJsonLines(Path.Combine(_data.Folder, "none.jsonl"), null, TinyData.Processor));
        Assert.Contains("none.jsonl: cannot be read (", e.Message);
        Assert.Equal(DataFileFault.Unreadable, e.Fault);
    }
}
