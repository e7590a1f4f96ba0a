using System.Text;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

public sealed class SafetensorsReaderTests : IDisposable
{
    private const string Whole = "The file was not written by a safetensors library as it stands: write or download it again.";
    private const string CutOff = "The file was cut off: copy or download it again, and check its size.";
    private const string Kind = "Check that this is a safetensors file (TensorFiles.Open tells formats apart), or download it again.";
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    /// <summary>Header (quotes as '), bytes of data, fault, tensor, message without the file's name.</summary>
    public static TheoryData<string, int, SafetensorsFault, string?, string> Malformed => new()
    {
        { "{'a':{'dtype':'F7','shape':[1],'data_offsets':[0,4]}}", 4, SafetensorsFault.UnknownDtype, "a",
            "tensor 'a': its dtype is 'F7'. Convert it in Python to one of: " + string.Join(", ", TensorDtypes.Names) + "." },
        { "{'a':{'dtype':'F32','shape':[-1],'data_offsets':[0,4]}}", 4, SafetensorsFault.InvalidShape, "a",
            "tensor 'a': its shape holds -1, which is no whole number from 0 to 2^63 - 1. " + Whole },
        { "{'a':{'dtype':'F32','shape':[1.0],'data_offsets':[0,4]}}", 4, SafetensorsFault.InvalidShape, "a",
            "tensor 'a': its shape holds 1.0, which is no whole number from 0 to 2^63 - 1. " + Whole },
        { "{'a':{'dtype':'F32','shape':[4294967296,4294967296],'data_offsets':[0,4]}}", 4, SafetensorsFault.InvalidShape, "a",
            "tensor 'a': its shape (4294967296, 4294967296) has more bytes than 64 bits can count. " + Whole },
        { "{'a':{'dtype':'U8','shape':[9223372036854775807,3,0],'data_offsets':[0,0]}}", 0, SafetensorsFault.InvalidShape, "a",
            "tensor 'a': its shape (9223372036854775807, 3, 0) has more bytes than 64 bits can count. " + Whole },
        { "{'a':{'dtype':'F32','shape':[2,3],'data_offsets':[0,20]}}", 20, SafetensorsFault.SizeMismatch, "a",
            "tensor 'a': its shape (2, 3) in F32 takes 24 bytes, but it has 20. " + Whole },
        { "{'a':{'dtype':'F32','shape':[1],'data_offsets':[4,0]}}", 4, SafetensorsFault.InvalidOffsets, "a",
            "tensor 'a': its bytes begin at 4 and end before that, at 0. " + Whole },
        { "{'a':{'dtype':'F32','shape':[1],'data_offsets':[-4,0]}}", 4, SafetensorsFault.InvalidOffsets, "a",
            "tensor 'a': its data_offsets holds -4, which is no whole number from 0 to 2^63 - 1. " + Whole },
        { "{'a':{'dtype':'F32','shape':[1],'data_offsets':[18446744073709551615,4]}}", 4, SafetensorsFault.InvalidOffsets, "a",
            "tensor 'a': its data_offsets holds 18446744073709551615, which is no whole number from 0 to 2^63 - 1. " + Whole },
        { "{'a':{'dtype':'F32','shape':[2],'data_offsets':[0,8]}}", 7, SafetensorsFault.CutOff, "a",
            "tensor 'a': its bytes end at 8, but the file has only 7 bytes of tensors. " + CutOff },
        { "{'a':{'dtype':'F32','shape':[2],'data_offsets':[0,8]},'b':{'dtype':'F32','shape':[1],'data_offsets':[4,8]}}", 8,
            SafetensorsFault.Overlap, "b", "tensor 'b': its bytes begin at 4, inside another tensor that ends at 8. " + Whole },
        { "{'a':{'dtype':'F32','shape':[1],'data_offsets':[0,4]},'b':{'dtype':'F32','shape':[1],'data_offsets':[8,12]}}", 12,
            SafetensorsFault.Unclaimed, "b", "tensor 'b': the bytes 4 to 8 before it belong to no tensor. " + Whole },
        { "{'a':{'dtype':'F32','shape':[1],'data_offsets':[0,4]}}", 7, SafetensorsFault.Unclaimed, null,
            "3 bytes after its last tensor belong to no tensor. " + Whole },
        { "{'a':{'dtype':'F32','shape':[1],'data_offsets':[0,4]},'a':{'dtype':'F32','shape':[1],'data_offsets':[4,8]}}", 8,
            SafetensorsFault.Duplicate, "a", "tensor 'a': its header names it twice. " + Whole },
        { "{'a':{'dtype':'F32','dtype':'I32','shape':[1],'data_offsets':[0,4]}}", 4, SafetensorsFault.Duplicate, "a",
            "tensor 'a': its entry has two dtype. " + Whole },
        { "{'a':{'dtype':'F32','shape':[1],'shape':[1],'data_offsets':[0,4]}}", 4, SafetensorsFault.Duplicate, "a",
            "tensor 'a': its entry has two shape. " + Whole },
        { "{'a':{'dtype':'F32','shape':[1],'data_offsets':[0,4],'data_offsets':[0,4]}}", 4, SafetensorsFault.Duplicate, "a",
            "tensor 'a': its entry has two data_offsets. " + Whole },
        { "{'__metadata__':{},'__metadata__':{}}", 0, SafetensorsFault.Duplicate, null, "its header has two __metadata__. " + Whole },
        { "{'__metadata__':{'k':'1','k':'2'}}", 0, SafetensorsFault.Duplicate, null, "its metadata has 'k' twice. " + Whole },
        { "{'__metadata__':{'k':1}}", 0, SafetensorsFault.HeaderNotJson, null, "its metadata 'k' is no text. " + Kind },
        { "{'__metadata__':[]}", 0, SafetensorsFault.HeaderNotJson, null, "its __metadata__ is no JSON object. " + Kind },
        { "{'a':[]}", 0, SafetensorsFault.HeaderNotJson, "a", "tensor 'a': its entry is no JSON object. " + Kind },
        { "{'a':{'dtype':'F32','shape':[1]}}", 4, SafetensorsFault.HeaderNotJson, "a",
            "tensor 'a': its entry lacks dtype, shape or data_offsets. " + Kind },
        { "{'a':{'dtype':1,'shape':[1],'data_offsets':[0,4]}}", 4, SafetensorsFault.HeaderNotJson, "a", "tensor 'a': its dtype is no text. " + Kind },
        { "{'a':{'dtype':'F32','shape':1,'data_offsets':[0,4]}}", 4, SafetensorsFault.HeaderNotJson, "a", "tensor 'a': its shape is no list. " + Kind },
        { "{'a':{'dtype':'F32','shape':['1'],'data_offsets':[0,4]}}", 4, SafetensorsFault.HeaderNotJson, "a",
            "tensor 'a': its shape holds what is no number. " + Kind },
        { "{'a':{'dtype':'F32','shape':[1],'data_offsets':[0,4,8]}}", 4, SafetensorsFault.HeaderNotJson, "a",
            "tensor 'a': its data_offsets are 3 numbers, not two. " + Kind },
        { "{'a':{'dtype':'F32','shape':[1],'data_offsets':[0,4],'zip':true}}", 4, SafetensorsFault.HeaderNotJson, "a",
            "tensor 'a': its entry has a field 'zip', which the format does not know. " + Kind },
        { " {}", 0, SafetensorsFault.HeaderNotJson, null, "its header does not begin with {. " + Kind },
        { "", 0, SafetensorsFault.HeaderNotJson, null, "its header does not begin with {. " + Kind },
    };

    [Theory]
    [MemberData(nameof(Malformed))]
    public void A_malformed_header_is_refused_by_name(string header, int data, SafetensorsFault fault, string? tensor, string message)
    {
        string path = Write(Encoding.UTF8.GetBytes(header.Replace('\'', '"')), data);
        var e = Assert.Throws<SafetensorsFormatException>(() => SafetensorsReader.Open(path));
        Assert.Equal($"{path}: {message}", e.Message);
        Assert.Equal((fault, tensor, path), (e.Fault, e.Tensor, e.SourceFile));
    }

    [Theory]
    [InlineData("{")]
    [InlineData("{}x")]
    [InlineData("{} {}")]
    [InlineData("{'a':{'dtype':'F32','shape':[1],'data_offsets':[0,4]},}")]
    [InlineData("{'\\ud800':{'dtype':'F32','shape':[1],'data_offsets':[0,4]}}")]
    public void What_is_no_json_is_refused(string header)
    {
        string path = Write(Encoding.UTF8.GetBytes(header.Replace('\'', '"')), 4);
        var e = Assert.Throws<SafetensorsFormatException>(() => SafetensorsReader.Open(path));
        Assert.StartsWith($"{path}: its header is no JSON (", e.Message);
        Assert.EndsWith("). " + Kind, e.Message);
        Assert.Equal(SafetensorsFault.HeaderNotJson, e.Fault);
    }

    [Fact]
    public void Broken_lengths_and_encodings_are_refused()
    {
        AssertRefused([1, 2, 3], SafetensorsFault.TooShort, "it has 3 bytes, fewer than the 8 that hold the header's length. " + CutOff);
        AssertRefused([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], SafetensorsFault.HeaderTooLarge,
            "its header would have 18446744073709551615 bytes, more than the 100000000 of the format. " + Kind);
        AssertRefused([10, 0, 0, 0, 0, 0, 0, 0, (byte)'{', (byte)'}'], SafetensorsFault.HeaderCutOff, "its header has 10 bytes, but only 2 follow. " + CutOff);
        AssertRefused([4, 0, 0, 0, 0, 0, 0, 0, (byte)'{', 0xff, 0xfe, (byte)'}'], SafetensorsFault.HeaderNotUtf8, "its header is no valid UTF-8. " + Kind);

        void AssertRefused(byte[] bytes, SafetensorsFault fault, string message)
        {
            string path = _folder.File("broken.safetensors");
            File.WriteAllBytes(path, bytes);
            var e = Assert.Throws<SafetensorsFormatException>(() => SafetensorsReader.Open(path));
            Assert.Equal((fault, $"{path}: {message}"), (e.Fault, e.Message));
        }
    }

    [Fact]
    public void A_missing_file_and_a_folder_are_named()
    {
        string path = _folder.File("none.safetensors");
        var missing = Assert.Throws<TensorFileNotFoundException>(() => SafetensorsReader.Open(path));
        Assert.Equal($"{path} does not exist. Check the path.", missing.Message);
        var folder = Assert.Throws<TensorFileNotFoundException>(() => SafetensorsReader.Open(_folder.Path));
        Assert.StartsWith($"{_folder.Path} cannot be read: ", folder.Message);
        Assert.EndsWith(". Check that it is a file that this user may read.", folder.Message);
    }

    [Fact]
    public void A_tensor_that_is_not_there_is_named_with_the_nearest()
    {
        string path = Write(Encoding.UTF8.GetBytes("""{"lora_A.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"""), 4);
        using var reader = SafetensorsReader.Open(path);
        var e = Assert.Throws<TensorNotFoundException>(() => reader.Load("lora_a.weight"));
        Assert.Equal($"{path} holds no tensor 'lora_a.weight'. It holds 1: lora_A.weight. Did you mean 'lora_A.weight'?", e.Message);
        Assert.EndsWith(". Ask for one of these, or check that this is the right file.", Assert.Throws<TensorNotFoundException>(() => reader.Map("bias")).Message);
    }

    /// <summary>Headers of other writers need not be padded, so that tensors stand anywhere.</summary>
    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(3)]
    public void Tensors_are_read_wherever_they_stand(int spaces)
    {
        using var scope = NewDisposeScope();
        string header = """{"a":{"dtype":"F64","shape":[2],"data_offsets":[1,17]},"b":{"dtype":"BOOL","shape":[],"data_offsets":[0,1]}}""" + new string(' ', spaces);
        byte[] data = [1, .. BitConverter.GetBytes(2.5), .. BitConverter.GetBytes(-7.0)];
        string path = Write(Encoding.UTF8.GetBytes(header), data);
        using var reader = SafetensorsReader.Open(path);
        Assert.Equal(["a", "b"], reader.Entries.Keys);
        Assert.Null(reader.Metadata);
        TensorAssert.Equal(tensor([2.5, -7.0]), reader.Map("a").In(scope), "a");
        TensorAssert.Equal(tensor([2.5, -7.0]), reader.Load("a").In(scope), "a");
        TensorAssert.Equal(tensor(true), reader.Map("b").In(scope), "b");
    }

    [Fact]
    public void A_mapped_tensor_outlives_its_reader_and_never_changes_the_file()
    {
        using var scope = NewDisposeScope();
        string path = _folder.File("mapped.safetensors");
        SafetensorsWriter.Write(path, [new NamedTensor("w", arange(5f)), new NamedTensor("v", arange(3f))]);
        byte[] before = File.ReadAllBytes(path);
        Tensor mapped;
        using (var reader = SafetensorsReader.Open(path)) mapped = reader.Map("w").In(scope);
        mapped.mul_(3);
        TensorAssert.Equal(arange(5f) * 3, mapped, "w");
        Assert.Equal(before, File.ReadAllBytes(path));
    }

    [Fact]
    public void A_file_replaced_since_is_not_mapped()
    {
        using var scope = NewDisposeScope();
        string path = _folder.File("replaced.safetensors");
        SafetensorsWriter.Write(path, [new NamedTensor("w", arange(5f))]);
        using var reader = SafetensorsReader.Open(path);
        long length = new FileInfo(path).Length;
        reader.Map("w").In(scope);
        SafetensorsWriter.Write(path, [new NamedTensor("w", arange(7f))]);
        var longer = Assert.Throws<TensorFileChangedException>(() => reader.Map("w"));
        Assert.Equal($"{path} changed after it was opened: it had {length} bytes, and has {length + 8} now. "
            + "Open it again, and write new files beside it instead of into it.", longer.Message);
        Assert.Equal((length, length + 8), (longer.LengthThen, longer.LengthNow));
        TensorAssert.Equal(arange(5f), reader.Load("w").In(scope), "the old file, which is still open");
        SafetensorsWriter.Write(path, [new NamedTensor("w", arange(5f))]);
        File.SetLastWriteTimeUtc(path, DateTime.UtcNow.AddMinutes(1));
        Assert.Contains($"it had {length} bytes, and was written again since. ", Assert.Throws<TensorFileChangedException>(() => reader.Map("w")).Message);
        File.Delete(path);
        Assert.Contains($"it had {length} bytes, and is gone now. ", Assert.Throws<TensorFileChangedException>(() => reader.Map("w")).Message);
    }

    [Fact]
    public void A_file_cut_off_since_is_named()
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "needs the command truncate");
        string path = Write(Encoding.UTF8.GetBytes("""{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}"""), 3);
        using var reader = SafetensorsReader.Open(path);
        // Another process may do so; .NET's own locks would keep this one from it.
        using (var cut = System.Diagnostics.Process.Start("truncate", ["-s", "-2", path])) cut.WaitForExit();
        Assert.Equal($"{path}: tensor 'a': the file was cut off after it was opened. {CutOff}", Assert.Throws<SafetensorsFormatException>(() => reader.Load("a")).Message);
        Assert.Contains(" changed after it was opened: it had ", Assert.Throws<TensorFileChangedException>(() => reader.Map("a")).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Cancelled_loading_stops()
    {
        string path = Write(Encoding.UTF8.GetBytes("""{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}"""), 3);
        using var reader = SafetensorsReader.Open(path);
        Assert.Throws<OperationCanceledException>(() => reader.Load("a", new CancellationToken(canceled: true)));
    }

    private string Write(byte[] header, int data) => Write(header, new byte[data]);

    private string Write(byte[] header, byte[] data)
    {
        string path = _folder.File("written.safetensors");
        File.WriteAllBytes(path, [.. BitConverter.GetBytes((long)header.Length), .. header, .. data]);
        return path;
    }
}
