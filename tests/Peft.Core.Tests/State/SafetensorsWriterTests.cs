using System.Text;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

public sealed class SafetensorsWriterTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    public static IEnumerable<TheoryDataRow<string>> Written => RecordedFiles.Rows(RecordedFiles.WrittenByTheLibrary, ".safetensors");

    [Theory]
    [MemberData(nameof(Written), DisableDiscoveryEnumeration = true)]
    public void Every_recorded_file_is_written_again_byte_for_byte(string path)
    {
        string copy = _folder.File("copy.safetensors");
        using var scope = NewDisposeScope();
        using var reader = SafetensorsReader.Open(path);
        // Backwards: the writer has to find the order itself.
        var tensors = reader.Entries.Values.Reverse().Select(e => new NamedTensor(e.Name, reader.Load(e.Name).In(scope), e.DtypeName));
        SafetensorsWriter.Write(copy, tensors, reader.Metadata);
        Assert.True(File.ReadAllBytes(path).AsSpan().SequenceEqual(File.ReadAllBytes(copy)), $"{path} differs from what is written for it.");
    }

    [Fact]
    public void Every_kind_of_tensor_comes_back()
    {
        using var scope = NewDisposeScope();
        string path = _folder.File("kinds.safetensors");
        var tensors = new Dictionary<string, Tensor>
        {
            ["scalar"] = tensor(2.5f),
            ["empty"] = empty(3, 0, 2),
            ["transposed"] = arange(6, dtype: ScalarType.Int64).view(2, 3).t(),
            ["every second"] = arange(11, dtype: ScalarType.Float64)[TensorIndex.Slice(1, null, 2)],
            ["bf16"] = tensor([1.5f, -2f, float.NaN]).to(ScalarType.BFloat16),
            ["expanded"] = tensor([7, 8]).unsqueeze(1).expand(2, 3),
            ["flags"] = tensor([true, false, true]),
            ["needs gradient"] = tensor([1f, 3f], requires_grad: true),
            ["名\"\\\n\u0001é😀"] = tensor((sbyte)-3),
        };
        SafetensorsWriter.Write(path, tensors, SafetensorsWriter.PyTorchMetadata);
        using var reader = SafetensorsReader.Open(path);
        Assert.Equal("pt", reader.Metadata!["format"]);
        Assert.Equal(tensors.Keys.Order(), reader.Entries.Keys.Order());
        foreach (var (name, expected) in tensors)
        {
            TensorAssert.Equal(expected, reader.Load(name).In(scope), name);
            TensorAssert.Equal(expected, reader.Map(name).In(scope), name);
        }
    }

    [Fact]
    public void The_header_is_what_the_library_writes()
    {
        using var scope = NewDisposeScope();
        string path = _folder.File("order.safetensors");
        var tensors = new Dictionary<string, Tensor>
        {
            ["b"] = tensor((byte)1), ["\uFFFD"] = tensor(1f), ["😀"] = tensor(2f), ["a"] = tensor(3f), ["long"] = zeros([2, 1], dtype: ScalarType.Int64),
        };
        SafetensorsWriter.Write(path, tensors, [new("q\"\\\b\f\n\r\t\u001f\u007f/", "é")]);
        string text = Encoding.UTF8.GetString(File.ReadAllBytes(path).AsSpan(8));
        string expected = "{'__metadata__':{'q\\'\\\\\\b\\f\\n\\r\\t\\u001f\u007f/':'é'},"
            + "'long':{'dtype':'I64','shape':[2,1],'data_offsets':[0,16]},'a':{'dtype':'F32','shape':[],'data_offsets':[16,20]},"
            + "'\uFFFD':{'dtype':'F32','shape':[],'data_offsets':[20,24]},'😀':{'dtype':'F32','shape':[],'data_offsets':[24,28]},"
            + "'b':{'dtype':'U8','shape':[],'data_offsets':[28,29]}}";
        Assert.StartsWith(expected.Replace('\'', '"'), text);
        byte[] bytes = File.ReadAllBytes(path);
        Assert.Equal(0, BitConverter.ToInt64(bytes) % 8);
        Assert.Equal(bytes.Length, 8 + BitConverter.ToInt64(bytes) + 29);
    }

    [Fact]
    public void Nothing_at_all_is_a_valid_file()
    {
        string path = _folder.File("nothing.safetensors");
        SafetensorsWriter.Write(path, Array.Empty<NamedTensor>());
        Assert.Equal("\b\0\0\0\0\0\0\0{}      ", Encoding.UTF8.GetString(File.ReadAllBytes(path)));
        SafetensorsWriter.Write(path, Array.Empty<NamedTensor>(), []);
        using var reader = SafetensorsReader.Open(path);
        Assert.Empty(reader.Entries);
        Assert.Empty(reader.Metadata!);
    }

    [Fact]
    public void Dtypes_that_torchsharp_lacks_pass_through_as_bytes()
    {
        using var scope = NewDisposeScope();
        string path = _folder.File("bytes.safetensors");
        var small = tensor(new byte[] { 0x38, 0xff, 0x7e });
        var wide = tensor(new byte[] { 1, 2, 3, 4, 5, 6 }).view(3, 2);
        SafetensorsWriter.Write(path, new NamedTensor[] { new("f8", small, "F8_E4M3"), new("u16", wide, "U16") });
        using var reader = SafetensorsReader.Open(path);
        Assert.Equal([("u16", "U16"), ("f8", "F8_E4M3")], reader.Entries.Values.Select(e => (e.Name, e.DtypeName)));
        Assert.Equal([3, 2], reader.Entries["u16"].Shape);
        TensorAssert.Equal(small, reader.Load("f8").In(scope), "f8");
        TensorAssert.Equal(wide, reader.Map("u16").In(scope), "u16");
    }

    [Fact]
    public void What_cannot_be_written_is_named_and_the_earlier_file_stays()
    {
        using var scope = NewDisposeScope();
        string path = _folder.File("kept.safetensors");
        File.WriteAllText(path, "earlier");
        var one = tensor(1f);
        AssertRefused("a", [new("a", one), new("a", one)], "tensor 'a' is given twice. Nothing was written. Give every name once.");
        AssertRefused("\ud800", [new("\ud800", one)],
            "tensor '\ud800' has a name with half of a surrogate pair, which is no text. Nothing was written. Rename it.");
        AssertRefused("__metadata__", [new("__metadata__", one)],
            "tensor '__metadata__' has the name that the format keeps for its metadata. Nothing was written. Rename it.");
        AssertRefused("c", [new("c", zeros([2], dtype: ScalarType.ComplexFloat64))],
            "tensor 'c' is ComplexFloat64, which the format does not know. Nothing was written. Convert it to a dtype of the format: "
            + string.Join(", ", TensorDtypes.Names) + ".");
        AssertRefused("h", [new("h", one, "F16")],
            "tensor 'h' is Float32 and cannot be written as F16. Nothing was written. Leave the dtype's name out, or convert the tensor.");
        AssertRefused("u", [new("u", zeros([2, 3], dtype: ScalarType.Byte), "U32")],
            "tensor 'u' has shape (2, 3), but the bytes of U32 stand in a last dimension of 4. Nothing was written. Add that dimension.");
        Assert.Equal("earlier", File.ReadAllText(path));
        Assert.Single(Directory.GetFiles(_folder.Path));

        void AssertRefused(string name, NamedTensor[] tensors, string message)
        {
            var e = Assert.Throws<TensorWriteException>(() => SafetensorsWriter.Write(path, tensors));
            Assert.Equal($"{path}: {message}", e.Message);
            Assert.Equal((path, name), (e.SourceFile, e.Tensor));
        }
    }

    [Fact]
    public void Cancelled_writing_leaves_the_earlier_file()
    {
        using var scope = NewDisposeScope();
        string path = _folder.File("kept.safetensors");
        File.WriteAllText(path, "earlier");
        Assert.Throws<OperationCanceledException>(
            () => SafetensorsWriter.Write(path, [new NamedTensor("a", ones(3))], cancellation: new CancellationToken(canceled: true)));
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
            string path = _folder.File("leak.safetensors");
            SafetensorsWriter.Write(path, [new NamedTensor("w", transposed), new NamedTensor("b", weight)]);
            using var reader = SafetensorsReader.Open(path);
            reader.Load("w").Dispose();
            reader.Map("b").Dispose();
        });
    }
}
