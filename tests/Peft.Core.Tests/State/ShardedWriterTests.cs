using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

public sealed class ShardedWriterTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    public static IEnumerable<TheoryDataRow<string>> Recorded => RecordedFiles.Rows(_ => true, "pytorch_model.bin.index.json");

    /// <summary>PyTorch files keep the order of the state dict, so a checkpoint in them can be split again in the same places.</summary>
    [Theory]
    [MemberData(nameof(Recorded), DisableDiscoveryEnumeration = true)]
    public void Recorded_checkpoints_are_split_again_as_transformers_split_them(string path)
    {
        using var scope = NewDisposeScope();
        using var reader = ShardedCheckpoint.Open(path);
        var tensors = reader.Entries.Keys.Select(name => new KeyValuePair<string, Tensor>(name, reader.Load(name).In(scope))).ToList();
        string source = Path.GetDirectoryName(path)!;
        var sizes = reader.Shards.Select(shard =>
        {
            using var single = PickleReader.Open(Path.Combine(source, shard));
            return single.Entries.Values.Sum(entry => entry.Count * entry.Dtype.ElementSize());
        });
        var written = ShardedWriter.Write(_folder.File("again"), tensors, TensorFileFormat.PyTorch, sizes.Max());
        Assert.Equal([.. reader.Shards, "pytorch_model.bin.index.json"], written);
        Assert.Equal(File.ReadAllBytes(path), File.ReadAllBytes(_folder.File("again/pytorch_model.bin.index.json")));
        foreach (string shard in reader.Shards)
        {
            using var expected = PickleReader.Open(Path.Combine(source, shard));
            using var got = PickleReader.Open(_folder.File("again/" + shard));
            Assert.Equal(expected.Entries.Keys, got.Entries.Keys);
            Assert.Equal(TensorFingerprint.OfContent(expected), TensorFingerprint.OfContent(got));
        }
    }

    [Fact]
    public void Tensors_are_split_by_size_and_come_back()
    {
        using var scope = NewDisposeScope();
        var tensors = new Dictionary<string, Tensor> { ["a"] = arange(3f), ["huge"] = arange(30f), ["b"] = arange(2f), ["c"] = arange(4f), ["d"] = arange(1f) };
        var written = ShardedWriter.Write(_folder.Path, tensors, maxShardBytes: 24);
        Assert.Equal(["model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors", "model-00003-of-00003.safetensors", "model.safetensors.index.json"], written);
        Assert.Equal("""
            {
              "metadata": {
                "total_size": 160
              },
              "weight_map": {
                "a": "model-00002-of-00003.safetensors",
                "b": "model-00002-of-00003.safetensors",
                "c": "model-00003-of-00003.safetensors",
                "d": "model-00003-of-00003.safetensors",
                "huge": "model-00001-of-00003.safetensors"
              }
            }

            """, File.ReadAllText(_folder.File("model.safetensors.index.json")));
        using var reader = TensorFiles.Open(_folder.Path);
        foreach (var (name, expected) in tensors) TensorAssert.Equal(expected, reader.Load(name).In(scope), name);
    }

    [Fact]
    public void Files_of_an_earlier_saving_go_and_others_stay()
    {
        using var scope = NewDisposeScope();
        var tensors = new Dictionary<string, Tensor> { ["a"] = arange(3f), ["b"] = arange(2f) };
        File.WriteAllText(_folder.File("model-card.safetensors"), "other");
        File.WriteAllText(_folder.File("model.json"), "other");
        ShardedWriter.Write(_folder.Path, tensors, maxShardBytes: 12);
        Assert.Equal(["model.safetensors"], ShardedWriter.Write(_folder.Path, tensors));
        Assert.Equal(["model-card.safetensors", "model.json", "model.safetensors"], Directory.GetFiles(_folder.Path).Select(Path.GetFileName).Order(StringComparer.Ordinal));
        ShardedWriter.Write(_folder.Path, tensors, maxShardBytes: 12);
        Assert.False(File.Exists(_folder.File("model.safetensors")));
        using var reader = TensorFiles.Open(_folder.Path);
        Assert.Equal(["a", "b"], reader.Entries.Keys);
    }

    [Fact]
    public void A_failed_saving_leaves_the_earlier_files()
    {
        using var scope = NewDisposeScope();
        ShardedWriter.Write(_folder.Path, [new("a", arange(3f)), new("b", arange(2f))], maxShardBytes: 12);
        string[] before = [.. Directory.GetFiles(_folder.Path).Order().Select(path => path + Convert.ToHexString(File.ReadAllBytes(path)))];
        var bad = zeros([1], dtype: ScalarType.ComplexFloat64);
        Assert.Contains("tensor 'b' is ComplexFloat64, which the format does not know", Assert.Throws<TensorWriteException>(() => ShardedWriter.Write(_folder.Path, [new("a", arange(9f)), new("b", bad)], maxShardBytes: 12)).Message, StringComparison.Ordinal);
        Assert.Throws<OperationCanceledException>(
            () => ShardedWriter.Write(_folder.Path, [new("a", arange(9f))], cancellation: new CancellationToken(canceled: true)));
        Assert.Equal(before, Directory.GetFiles(_folder.Path).Order().Select(path => path + Convert.ToHexString(File.ReadAllBytes(path))));
    }

    [Fact]
    public void A_file_in_the_folders_place_is_named()
    {
        string path = _folder.File("taken");
        File.WriteAllText(path, "");
        var e = Assert.Throws<FileWriteException>(() => ShardedWriter.Write(path, []));
        Assert.Equal(path, e.Path);
        Assert.Equal($"{path} could not be written: The file '{path}' already exists. An earlier file of this name is as it was. Remove the cause and save again.", e.Message);
    }
}
