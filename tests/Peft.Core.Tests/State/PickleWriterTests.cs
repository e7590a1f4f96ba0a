using System.IO.Compression;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

public sealed class PickleWriterTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    public static IEnumerable<TheoryDataRow<string>> Recorded => RecordedFiles.Rows(IsOurs, ".bin", ".pt");

    private static bool IsOurs(string path) => File.ReadAllBytes(path).AsSpan().StartsWith("PK\u0003\u0004"u8);

    /// <summary>All but the 40 digits that identify the writing, and their checksum.</summary>
    [Theory]
    [MemberData(nameof(Recorded), DisableDiscoveryEnumeration = true)]
    public void Every_recorded_file_is_written_again_byte_for_byte(string path)
    {
        string copy = _folder.File(Path.GetFileName(path));
        PickleWriter.WriteObject(copy, PickleFile.ReadObject(path));
        Assert.Equal(Records(path).Select(r => r.Name), Records(copy).Select(r => r.Name));
        Assert.Equal(Records(path).First(r => r.Name == "data.pkl").Bytes, Records(copy).First(r => r.Name == "data.pkl").Bytes);
        byte[] expected = File.ReadAllBytes(path), got = File.ReadAllBytes(copy);
        Mask(expected);
        Mask(got);
        Assert.True(expected.AsSpan().SequenceEqual(got), $"{path} differs from what is written for it.");
    }

    private static (string Name, byte[] Bytes)[] Records(string path)
    {
        using var zip = ZipFile.OpenRead(path);
        return [.. zip.Entries.Select(e =>
        {
            using var stream = e.Open();
            using var memory = new MemoryStream();
            stream.CopyTo(memory);
            return (e.FullName[(e.FullName.IndexOf('/') + 1)..], memory.ToArray());
        })];
    }

    private static void Mask(byte[] bytes)
    {
        var name = ".data/serialization_id"u8;
        int local = bytes.AsSpan().IndexOf(name), central = bytes.AsSpan().LastIndexOf(name);
        int extra = BitConverter.ToUInt16(bytes, bytes.AsSpan(0, local).LastIndexOf("PK\u0003\u0004"u8) + 28);
        bytes.AsSpan(local + name.Length + extra, 40 + 8).Clear();                                      // digits, descriptor's checksum
        bytes.AsSpan(bytes.AsSpan(0, central).LastIndexOf("PK\u0001\u0002"u8) + 16, 4).Clear();         // directory's checksum
    }

    [Fact]
    public void Every_kind_of_tensor_comes_back()
    {
        using var scope = NewDisposeScope();
        string path = _folder.File("kinds.bin");
        var tensors = new Dictionary<string, Tensor>
        {
            ["scalar"] = tensor(2.5f),
            ["empty"] = empty(3, 0, 2),
            ["transposed"] = arange(6, dtype: ScalarType.Int64).view(2, 3).t(),
            ["bf16"] = tensor([1.5f, -2f, float.NaN]).to(ScalarType.BFloat16),
            ["f16"] = tensor([1.5f, -2f]).to(ScalarType.Float16),
            ["f64"] = tensor([1.5, -2]),
            ["i32"] = tensor([1, -2]),
            ["i16"] = tensor(new short[] { 1, -2 }),
            ["i8"] = tensor(new sbyte[] { 1, -2 }),
            ["u8"] = tensor(new byte[] { 1, 200 }),
            ["flags"] = tensor([true, false, true]),
            ["complex"] = complex(tensor([1f, 2f]), tensor([3f, 4f])),
            ["needs gradient"] = tensor([1f, 3f], requires_grad: true),
            ["名é😀"] = tensor(7L),
        };
        PickleWriter.Write(path, tensors, orderedDict: true);
        using var reader = PickleReader.Open(path);
        Assert.Equal(tensors.Keys, reader.Entries.Keys);
        foreach (var (name, expected) in tensors)
        {
            Assert.Equal(expected.dtype, reader.Entries[name].Dtype);
            Assert.Equal(expected.shape, reader.Entries[name].Shape);
            var loaded = reader.Load(name).In(scope);
            var mapped = reader.Map(name).In(scope);
            Assert.False(loaded.requires_grad);
            if (name == "complex") (loaded, mapped) = (view_as_real(loaded), view_as_real(mapped));
            TensorAssert.Equal(name == "complex" ? view_as_real(expected) : expected, loaded, name);
            TensorAssert.Equal(name == "complex" ? view_as_real(expected) : expected, mapped, name);
        }
    }

    [Fact]
    public void Tied_weights_are_written_once_and_stay_tied()
    {
        using var scope = NewDisposeScope();
        string path = _folder.File("tied.bin");
        var weight = randn(5, 4);
        PickleWriter.Write(path, [new("embed", weight), new("head", weight.alias()), new("part", weight[0]), new("copy", weight.clone())]);
        using var file = PickleFile.Open(path);
        var root = Assert.IsType<PickleDictionary>(file.Root);
        Assert.False(root.IsOrderedDict);
        Assert.Equal(["0", "0", "1", "2"], root.Values.Select(value => ((PickledTensor)value!).StorageKey));
        var loaded = (PickleDictionary)PickleFile.ReadObject(path)!;
        var embed = ((Tensor)loaded["embed"]!).In(scope);
        embed.zero_();
        TensorAssert.Equal(embed, ((Tensor)loaded["head"]!).In(scope), "head");
        TensorAssert.Equal(weight, ((Tensor)loaded["copy"]!).In(scope), "copy");
        ((Tensor)loaded["part"]!).Dispose();
    }

    [Fact]
    public void Plain_values_come_back_as_they_were()
    {
        string path = _folder.File("values.pt");
        var shared = new PickleTuple([0.9, 0.999]);
        var self = new List<object?>();
        self.Add(self);
        var value = new PickleDictionary(
        [
            new("none", null), new("flags", new List<object?> { true, false }),
            new("numbers", new List<object?> { 0L, 255L, 256L, 65535L, 65536L, -1L, int.MinValue - 1L, long.MaxValue, System.Numerics.BigInteger.Pow(7, 900) }),
            new("real", -1.25e-300), new("", ""), new(3L, "three"), new(2.5, new PickleTuple([])), new(new PickleTuple([1L, "x"]), new PickleTuple([1L, 2L, 3L, 4L])),
            new("one", new List<object?> { 1L }), new("empty", new PickleDictionary()),
            new("a", shared), new("b", shared), new("ordered", new PickleDictionary([new("k", 1L)], isOrderedDict: true)), new("self", self),
        ]);
        PickleWriter.WriteObject(path, value);
        var got = Assert.IsType<PickleDictionary>(PickleFile.ReadObject(path));
        Assert.Equal(value.Keys, got.Keys);
        foreach (string name in new[] { "none", "flags", "numbers", "real", "", "one", "empty", "a" }) Assert.Equal(value[name], got[name]);
        Assert.Equal("three", got[3L]);
        Assert.Equal(new PickleTuple([]), got[2.5]);
        Assert.Equal(new PickleTuple([1L, 2L, 3L, 4L]), got[new PickleTuple([1L, "x"])]);
        Assert.Same(got["a"], got["b"]);
        Assert.True(((PickleDictionary)got["ordered"]!).IsOrderedDict);
        Assert.Same(got["self"], ((List<object?>)got["self"]!)[0]);
    }

    /// <summary>Python writes containers in batches of 1000, the memo's wide opcodes from 256 on.</summary>
    [Theory]
    [InlineData(1, true)]
    [InlineData(2, false)]
    [InlineData(1000, false)]
    [InlineData(1000, true)]
    [InlineData(1001, false)]
    [InlineData(1001, true)]
    [InlineData(2500, true)]
    public void Long_containers_come_back(int count, bool ordered)
    {
        string path = _folder.File("long.pt");
        var items = Enumerable.Range(0, count).Select(i => new KeyValuePair<object, object?>($"key {i}", new List<object?> { (long)i }));
        PickleWriter.WriteObject(path, new PickleTuple([new PickleDictionary(items, ordered), Enumerable.Range(0, count).Select(i => (object?)(long)i).ToList()]));
        var got = (PickleTuple)PickleFile.ReadObject(path)!;
        Assert.Equal(items.Select(i => (i.Key, ((List<object?>)i.Value!)[0])), ((PickleDictionary)got[0]!).Select(i => (i.Key, ((List<object?>)i.Value!)[0])));
        Assert.Equal(Enumerable.Range(0, count).Select(i => (object?)(long)i), (List<object?>)got[1]!);
    }

    [Fact]
    public void What_cannot_be_written_is_named_and_the_earlier_file_stays()
    {
        using var scope = NewDisposeScope();
        string path = _folder.File("kept.bin");
        File.WriteAllText(path, "earlier");
        var twice = Assert.Throws<TensorWriteException>(() => PickleWriter.Write(path, [new("a", tensor(1f)), new("a", tensor(1f))]));
        Assert.Equal($"{path}: tensor 'a' is given twice. Nothing was written. Give every name once.", twice.Message);
        var half = Assert.Throws<TensorWriteException>(() => PickleWriter.Write(path, [new("\ud800", tensor(1f))]));
        Assert.EndsWith("has a name with half of a surrogate pair, which is no text. Nothing was written. Rename it.", half.Message);
        var dtype = Assert.Throws<TensorWriteException>(() => PickleWriter.Write(path, [new("c", zeros([2], dtype: ScalarType.ComplexFloat64))]));
        Assert.Equal($"{path}: tensor 'c' is ComplexFloat64, which cannot be written. Nothing was written. Convert it to another dtype.", dtype.Message);
        var kind = Assert.Throws<TensorWriteException>(() => PickleWriter.WriteObject(path, new PickleDictionary([new("when", DateTime.MinValue)])));
        Assert.Equal($"{path}: tensor 'when' is a DateTime, which is neither a tensor nor a plain value. Nothing was written. "
            + "Give null, bool, numbers, text, Tensor, List<object?>, PickleTuple or PickleDictionary.", kind.Message);
        Assert.Equal("earlier", File.ReadAllText(path));
        Assert.Single(Directory.GetFiles(_folder.Path));
    }

    [Fact]
    public void Writing_and_reading_leave_no_tensor_behind()
    {
        using var weight = randn(40, 3);
        using var transposed = weight.t();
        LeakGuard.AssertFlat(10, () =>
        {
            string path = _folder.File("leak.bin");
            PickleWriter.Write(path, [new("w", transposed), new("b", weight)]);
            using var reader = PickleReader.Open(path);
            reader.Load("w").Dispose();
            reader.Map("b").Dispose();
        });
    }
}
