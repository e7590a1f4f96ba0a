using Peft.Testing;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

public sealed class ShardedCheckpointTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    public static IEnumerable<TheoryDataRow<string>> Recorded => RecordedFiles.Rows(_ => true, ".index.json");

    [Theory]
    [MemberData(nameof(Recorded), DisableDiscoveryEnumeration = true)]
    public void Every_recorded_index_opens_with_all_its_tensors(string path)
    {
        using var scope = NewDisposeScope();
        using var reader = TensorFiles.Open(path);
        using var folder = TensorFiles.Open(Path.GetDirectoryName(path)!);
        Assert.Equal(reader.Entries.Keys, folder.Entries.Keys);
        Assert.NotEmpty(reader.Entries);
        var sharded = Assert.IsType<ShardedCheckpoint>(reader);
        foreach (string shard in sharded.Shards)
        {
            using var single = TensorFiles.Open(Path.Combine(Path.GetDirectoryName(path)!, shard));
            foreach (string name in single.Entries.Keys) TensorAssert.Equal(single.Load(name).In(scope), reader.Map(name).In(scope), name);
        }
        Assert.Contains(" holds no tensor 'no such tensor'. It holds ", Assert.Throws<TensorNotFoundException>(() => reader.Load("no such tensor")).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void All_that_does_not_fit_together_is_told_at_once()
    {
        using var scope = NewDisposeScope();
        SafetensorsWriter.Write(_folder.File("one.safetensors"), [new NamedTensor("a", ones(2)), new NamedTensor("b", ones(2)), new NamedTensor("extra", ones(2))]);
        SafetensorsWriter.Write(_folder.File("two.safetensors"), [new NamedTensor("b", ones(2)), new NamedTensor("c", ones(2))]);
        string path = Index("""
            "a": "one.safetensors", "b": "two.safetensors", "c": "two.safetensors", "d": "two.safetensors",
            "e": "three.safetensors", "f": "../two.safetensors", "g": "/etc/passwd", "h": ".."
            """);
        var e = Assert.Throws<ShardedCheckpointException>(() => TensorFiles.Open(path));
        Assert.Equal($"""
            {path}: 7 fault(s).
              '..' is no plain file name
              '../two.safetensors' is no plain file name
              '/etc/passwd' is no plain file name
              three.safetensors: missing from the folder
              one.safetensors: holds b, which the index has in two.safetensors
              one.safetensors: holds extra, which the index does not name
              two.safetensors: lacks d, which the index has there
            Download or copy the whole checkpoint again: its files belong to one saving.
            """, e.Message);
        Assert.Equal(7, e.Faults.Count);
    }

    [Theory]
    [InlineData("{")]
    [InlineData("{}")]
    [InlineData("{\"weight_map\": 3}")]
    [InlineData("{\"weight_map\": {\"a\": 3}}")]
    [InlineData("{\"weight_map\": {\"a\": null}}")]
    [InlineData("{\"weight_map\": {\"a\": \"x\", \"a\": \"y\"}}")]
    [InlineData("{\"weight_map\": {\"a\": \"x\"}, \"weight_map\": {}}")]
    public void What_is_no_index_is_refused(string json)
    {
        string path = _folder.File("model.safetensors.index.json");
        File.WriteAllText(path, json);
        var e = Assert.Throws<ShardedCheckpointException>(() => TensorFiles.Open(path));
        Assert.StartsWith($"{path}: 1 fault(s).\n  it is no index, {{\"weight_map\": {{name: file, …}}}} with every name once (", e.Message);
    }

    [Fact]
    public void A_damaged_shard_is_named()
    {
        File.WriteAllText(_folder.File("one.safetensors"), "1234");
        string path = Index("\"a\": \"one.safetensors\"");
        var e = Assert.Throws<SafetensorsFormatException>(() => TensorFiles.Open(path));
        Assert.Equal(_folder.File("one.safetensors"), e.SourceFile);
        Assert.Equal($"{e.SourceFile}: it has 4 bytes, fewer than the 8 that hold the header's length. The file was cut off: copy or download it again, and check its size.", e.Message);
        File.WriteAllText(_folder.File("one.safetensors"), "{\"weight_map\": {}}");
        // An index may not lead to an index.
        Assert.Contains("one.safetensors: its header would have 8388068008349082235 bytes, more than the 100000000 of the format. Check that this is a safetensors file",
            Assert.Throws<SafetensorsFormatException>(() => TensorFiles.Open(path)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Opening_leaves_no_tensor_behind()
    {
        using (var weight = ones(3)) SafetensorsWriter.Write(_folder.File("one.safetensors"), [new NamedTensor("a", weight)]);
        string path = Index("\"a\": \"one.safetensors\"");
        LeakGuard.AssertFlat(5, () =>
        {
            using var reader = ShardedCheckpoint.Open(path);
            reader.Load("a").Dispose();
            reader.Map("a").Dispose();
        });
    }

    private string Index(string weightMap)
    {
        string path = _folder.File("model.safetensors.index.json");
        File.WriteAllText(path, $"{{\"metadata\": {{}}, \"weight_map\": {{{weightMap}}}}}");
        return path;
    }
}
