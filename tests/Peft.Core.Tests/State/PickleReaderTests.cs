using System.IO.Compression;
using System.Text;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

public sealed class PickleReaderTests : IDisposable
{
    private const string Again = "Copy or save the file again.";
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    /// <summary>What a pickle that is written in Latin-1 asks for.</summary>
    public static TheoryData<string, string> Hostile => new()
    {
        { "cposix\nsystem\n(X\u0002\0\0\0lstR.", "posix.system" },
        { "cbuiltins\neval\n(X\u0002\0\0\012tR.", "builtins.eval" },
        { "\u008c\u0002os\u008c\u0006system\u0093\u008c\u0002ls\u0085R.", "os.system" },
        { "ctorch._utils\n_rebuild_parameter_with_state\n.", "torch._utils._rebuild_parameter_with_state" },
        { "cnumpy.core.multiarray\n_reconstruct\n.", "numpy.core.multiarray._reconstruct" },
        { "ccollections\nOrderedDict\n)\u0081.", "making an object of a class (opcode 0x81)" },
        { "(cos\nsystem\n.", "os.system" },
        { "(icollections\nOrderedDict\n.", "making an object of a class (opcode 'i')" },
        { "\u0082\u0001.", "an extension of the copyreg module (opcode 0x82)" },
        { "I1\n.", "the pickle operation 'I'" },
        { "\u008f.", "the pickle operation 0x8f" },
        { "}}b.", "attributes on what is no OrderedDict" },
        { "]}b.", "attributes on what is no OrderedDict" },
        { ")K\u0001a.", "appending to what is no list" },
        { "]K\u0001K\u0002s.", "setting items of what is no dict" },
        { "K\u0001)R.", "a call of what is no function" },
        { "ctorch\nFloatStorage\n)R.", "a call of Storage with 0 unusual arguments" },
        { "ccollections\nOrderedDict\nK\u0001\u0085R.", "a call of OrderedDict with 1 unusual arguments" },
        { "ctorch._utils\n_rebuild_parameter\n)R.", "a call of RebuildParameter with 0 unusual arguments" },
        { "ctorch._utils\n_rebuild_tensor_v2\n)R.", "a tensor with unusual arguments (hooks or attributes)" },
        { "K\u0001Q.", "an object by an unknown kind of persistent id" },
        { "(X\u0006\0\0\0moduleK\u0001K\u0002K\u0003K\u0004tQ.", "an object by an unknown kind of persistent id" },
    };

    [Theory]
    [MemberData(nameof(Hostile))]
    public void Anything_but_tensors_and_containers_is_refused_by_name(string pickle, string refused)
    {
        string path = Write(pickle);
        var e = Assert.Throws<PickleRefusedException>(() => PickleReader.Open(path));
        Assert.Equal(refused, e.Refused);
        Assert.Equal($"{path} asks for {refused}, which is neither a tensor nor a plain container; nothing was run. "
            + "If you trust the file, load it in Python and save its tensors alone, best as safetensors.", e.Message);
    }

    public static TheoryData<string, string> Damaged => new()
    {
        { "}", "its pickle is cut off" },
        { "X\u0009\0\0\0abc.", "its pickle is cut off" },
        { "X\u00ff\u00ff\u00ff\u00ffabc.", "its pickle is cut off" },
        { "\u008d\u00ff\u00ff\u00ff\u00ff\u00ff\u00ff\u00ff\u00ffabc.", "its pickle is cut off" },
        { "cposix", "its pickle is cut off" },
        { "X\u0001\0\0\0\u00ff.", "its pickle holds a text that is no UTF-8" },
        { ".", "its pickle takes from an empty stack" },
        { "(.", "its pickle takes from an empty stack" },
        { "K\u0001(\u0085.", "its pickle takes from an empty stack" },
        { "q\0.", "its pickle takes from an empty stack" },
        { "}}.", "its pickle ends with values left over" },
        { "}.}", "its pickle goes on after its end" },
        { "t.", "its pickle closes what it has not opened" },
        { "h\u0007.", "its pickle refers to value 7, which it has not made" },
        { "}(K\u0001u.", "a dict of its pickle has a key without a value" },
        { "}]K\u0001s.", "a dict of its pickle has a key that is no text, number or tuple of these but List`1" },
        { "}NK\u0001s.", "a dict of its pickle has a key that is no text, number or tuple of these but None" },
        { "})\u0085K\u0001s.", "a dict of its pickle has a key that is no text, number or tuple of these but PickleTuple" },
        { "K\u0001K\u0002\u0093.", "its pickle names something by what is no text" },
        { "ccollections\nOrderedDict\n]R.", "its pickle calls something without a tuple of arguments" },
        { "ccollections\nOrderedDict\n]K\u0001a\u0085R.", "an OrderedDict of its pickle is made of what are no pairs" },
        { "\u0080\u0001.", "its pickle has protocol 1; 2 to 5 are known" },
        { "\u0080\u0006.", "its pickle has protocol 6; 2 to 5 are known" },
        { "X\u0005\0\0\0torchK\u0002\u0093.", "its pickle names something by what is no text" },
        { "(X\u0007\0\0\0storagectorch\nFloatStorage\nX\u0001\0\0\0" + "7X\u0003\0\0\0cpuK\u0001tQ.", "storage '7' has no record" },
        { "(X\u0007\0\0\0storagectorch\nFloatStorage\nX\u0001\0\0\0" + "0X\u0003\0\0\0cpuK\u0001tQ.",
            "storage '0' has 1 elements of F32, but its record has 24 bytes" },
    };

    [Theory]
    [MemberData(nameof(Damaged))]
    public void A_damaged_pickle_is_refused(string pickle, string fault)
    {
        string path = Write(pickle);
        var e = Assert.Throws<PickleFormatException>(() => PickleReader.Open(path));
        Assert.Equal($"{path}: {fault}. {Again}", e.Message);
        Assert.Equal(path, e.SourceFile);
    }

    [Theory]
    [InlineData("M\u00ff\0", "(2, 3)", "(3, 1)", 255)]
    [InlineData("K\u0001", "(2, 3)", "(3, 1)", 1)]
    [InlineData("J\u00ff\u00ff\u00ff\u00ff", "(2, 3)", "(3, 1)", -1)]
    public void A_tensor_beyond_its_storage_is_refused(string offset, string shape, string strides, long value)
    {
        string path = Write(Rebuilt(offset, "K\u0002K\u0003\u0086", "K\u0003K\u0001\u0086"));
        var e = Assert.Throws<PickleFormatException>(() => PickleReader.Open(path));
        Assert.Equal($"{path}: a tensor of shape {shape}, strides {strides} and offset {value} does not fit into storage '0' of 6 elements. {Again}", e.Message);
    }

    [Theory]
    [InlineData("K\u0007\u0085", "K\u0001\u0085")]                                     // one too many
    [InlineData("K\u0002\u0085", "K\u0006\u0085")]                                     // a stride too wide
    [InlineData("K\u0002\u0085", "J\u00ff\u00ff\u00ff\u00ff\u0085")]                   // a negative stride
    [InlineData("J\u00ff\u00ff\u00ff\u00ff\u0085", "K\u0001\u0085")]                   // a negative side
    [InlineData("K\u0002\u0085", ")")]                                                 // strides of another number
    [InlineData("J\u00ff\u00ff\u00ff\u007fJ\u00ff\u00ff\u00ff\u007f\u0086", "K\0K\0\u0086")] // expanded without end
    public void Shapes_and_strides_that_do_not_fit_are_refused(string shape, string strides)
        => Assert.Contains(" does not fit into storage '0' of 6 elements. ", Assert.Throws<PickleFormatException>(() => PickleReader.Open(Write(Rebuilt("K\0", shape, strides)))).Message, StringComparison.Ordinal);

    [Theory]
    [InlineData(CompressionLevel.NoCompression)]
    [InlineData(CompressionLevel.Optimal)]
    public void Offsets_strides_and_shared_storages_are_respected(CompressionLevel level)
    {
        using var scope = NewDisposeScope();
        string item(string name, string tensor) => $"X{(char)name.Length}\0\0\0{name}{tensor}";
        string path = Write("}(" + item("t", Tensor("K\0", "K\u0003K\u0002\u0086", "K\u0001K\u0003\u0086")) + item("tail", Tensor("K\u0004", "K\u0002\u0085", "K\u0001\u0085"))
            + item("wide", Tensor("K\u0001", "K\u0002K\u0002\u0086", "K\0K\u0003\u0086")) + item("none", Tensor("K\u0006", "K\0\u0085", "K\u0001\u0085"))
            + item("one", Tensor("K\u0005", ")", ")")) + "u.", level);
        using var reader = PickleReader.Open(path);
        Assert.Equal(["t", "tail", "wide", "none", "one"], reader.Entries.Keys);
        foreach (var read in new Func<string, Tensor>[] { reader.Load, reader.Map })
        {
            TensorAssert.Equal(tensor(new float[,] { { 0, 3 }, { 1, 4 }, { 2, 5 } }), read("t").In(scope), "t");
            TensorAssert.Equal(tensor([4f, 5f]), read("tail").In(scope), "tail");
            TensorAssert.Equal(tensor(new float[,] { { 1, 4 }, { 1, 4 } }), read("wide").In(scope), "wide");
            TensorAssert.Equal(empty(0), read("none").In(scope), "none");
            TensorAssert.Equal(tensor(5f), read("one").In(scope), "one");
        }
        using var fresh = reader.Load("t");
        Assert.True(fresh.is_contiguous());
    }

    [Fact]
    public void A_tensor_that_is_not_there_is_named_with_the_nearest()
    {
        string path = _folder.File("names.bin");
        using var weight = torch.arange(5f);
        PickleWriter.Write(path, [new("q_proj.weight", weight), new("v_proj.weight", weight)]);
        using var reader = PickleReader.Open(path);
        Assert.Equal($"{path} holds no tensor 'q_porj.weight'. It holds 2: q_proj.weight, v_proj.weight. Did you mean 'q_proj.weight'?",
            Assert.Throws<TensorNotFoundException>(() => reader.Load("q_porj.weight")).Message);
        Assert.EndsWith("Ask for one of these, or check that this is the right file.", Assert.Throws<TensorNotFoundException>(() => reader.Map("something.else.entirely")).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Newer_dtypes_come_as_bytes_and_parameters_as_tensors()
    {
        using var scope = NewDisposeScope();
        const string untyped = "(X\u0007\0\0\0storagectorch.storage\nUntypedStorage\nX\u0001\0\0\0" + "0X\u0003\0\0\0cpuK\u0018tQ";
        string v3(string dtype, string shape) => $"ctorch._utils\n_rebuild_tensor_v3\n({untyped}K\0{shape}K\u0001\u0085\u0089ccollections\nOrderedDict\n)Rctorch\n{dtype}\ntR";
        string path = Write("}(X\u0001\0\0\0f" + v3("float8_e4m3fn", "K\u0018\u0085") + "X\u0001\0\0\0u" + v3("uint16", "K\u000c\u0085")
            + "X\u0001\0\0\0pctorch._utils\n_rebuild_parameter\n" + Tensor("K\0", "K\u0006\u0085", "K\u0001\u0085") + "\u0088ccollections\nOrderedDict\n)R\u0087Ru.");
        using var reader = PickleReader.Open(path);
        Assert.Equal([("f", "F8_E4M3"), ("u", "U16"), ("p", "F32")], reader.Entries.Values.Select(e => (e.Name, e.DtypeName)));
        Assert.Equal([12, 2], reader.Entries["u"].Shape);
        var bytes = tensor(Enumerable.Range(0, 6).SelectMany(i => BitConverter.GetBytes((float)i)).ToArray());
        TensorAssert.Equal(bytes, reader.Map("f").In(scope), "f");
        TensorAssert.Equal(bytes.view(12, 2), reader.Map("u").In(scope), "u");
        TensorAssert.Equal(arange(6f), reader.Load("p").In(scope), "p");
        string odd = Write("}X\u0001\0\0\0f" + v3("float8_e4m3fn", "K\u0019\u0085") + "s.");
        Assert.Contains(" does not fit into storage '0' of 24 elements", Assert.Throws<PickleFormatException>(() => PickleReader.Open(odd)).Message, StringComparison.Ordinal);
        string partly = Write("}X\u0001\0\0\0f" + v3("uint64", "K\u0002\u0085").Replace("K\u0018tQ", "K\u0017tQ") + "s.", storage: 23);
        Assert.Equal($"{partly}: storage '0' has 23 bytes, which are no whole elements of U64. {Again}", Assert.Throws<PickleFormatException>(() => PickleReader.Open(partly)).Message);
        string notDtype = Write(v3("float8_e4m3fn", "K\u0018\u0085").Replace("ctorch\nfloat8_e4m3fn\n", "N") + ".");
        Assert.Contains("asks for a tensor with unusual arguments (hooks or attributes)", Assert.Throws<PickleRefusedException>(() => PickleReader.Open(notDtype)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Module_versions_of_a_state_dict_are_kept()
    {
        string path = Write("ccollections\nOrderedDict\n)R}X\u0009\0\0\0_metadata}sb.");
        using var file = PickleFile.Open(path);
        var root = Assert.IsType<PickleDictionary>(file.Root);
        Assert.Equal(["_metadata"], root.Attributes!.Keys);
        using var reader = PickleReader.Open(path);
        Assert.Empty(reader.Entries);
    }

    [Fact]
    public void An_ordered_dict_made_of_pairs_is_read()
    {
        using var file = PickleFile.Open(Write("ccollections\nOrderedDict\n](X\u0001\0\0\0bK\u0002\u0086X\u0001\0\0\0aK\u0001\u0086e\u0085R."));
        Assert.Equal([("b", 2L), ("a", 1L)], ((PickleDictionary)file.Root!).Select(pair => ((string)pair.Key, (long)pair.Value!)));
    }

    [Theory]
    [InlineData("]", "it holds a list, no dict of tensors. Read it with PickleFile.Open instead.")]
    [InlineData("N", "it holds a None, no dict of tensors. Read it with PickleFile.Open instead.")]
    [InlineData("}X\u0005\0\0\0epochK\u0003s", "its item 'epoch' is a number, no named tensor. Read it with PickleFile.Open instead, and take the tensors from there.")]
    [InlineData("}K\u0003\u0088s", "its item '3' is a bool, no named tensor. Read it with PickleFile.Open instead, and take the tensors from there.")]
    public void A_file_that_is_no_state_dict_says_what_it_is(string pickle, string message)
    {
        string path = Write(pickle + ".");
        Assert.Equal($"{path}: {message}", Assert.Throws<PickleFormatException>(() => PickleReader.Open(path)).Message);
        using var file = PickleFile.Open(path);
    }

    [Fact]
    public void Containers_nested_without_end_are_refused_and_shared_ones_are_cheap()
    {
        string deep = Write(string.Concat(Enumerable.Repeat("]", 200)) + string.Concat(Enumerable.Repeat("a", 199)) + ".");
        Assert.Equal($"{deep}: its containers are nested deeper than 100 levels. {Again}", Assert.Throws<PickleFormatException>(() => PickleFile.ReadObject(deep)).Message);
        string shared = Write(")" + string.Concat(Enumerable.Repeat("2\u0086", 80)) + ".");
        Assert.IsType<PickleTuple>(PickleFile.ReadObject(shared));
    }

    [Fact]
    public void Other_files_are_refused()
    {
        AssertRefused([0x80, 2, 0x8a, 10], "it is no zip file: PyTorch before 1.6 wrote such, or it is another kind of file. "
            + "Load it in Python and save it again with torch.save, best its tensors as safetensors.");
        AssertRefused([.. "PK\u0003\u0004"u8, 1, 2, 3], "it has no zip directory: it was cut off or is no zip file. " + Again);
        string path = Write("}.");
        using (var zip = ZipFile.Open(path, ZipArchiveMode.Update)) zip.GetEntry("a/data.pkl")!.Delete();
        AssertRefused(File.ReadAllBytes(path), "it holds 0 records data.pkl, where torch.save writes one. Check that torch.save wrote this file.");
        path = Write("}.");
        using (var zip = ZipFile.Open(path, ZipArchiveMode.Update)) Add(zip, "a/byteorder", "big"u8, CompressionLevel.NoCompression);
        AssertRefused(File.ReadAllBytes(path), "its numbers are big-endian. Save it again on a little-endian machine.");

        void AssertRefused(byte[] bytes, string message)
        {
            string file = _folder.File("other.bin");
            File.WriteAllBytes(file, bytes);
            Assert.Equal($"{file}: {message}", Assert.Throws<PickleFormatException>(() => PickleReader.Open(file)).Message);
        }
    }

    [Fact]
    public void Damaged_bytes_of_a_tensor_are_found()
    {
        string path = _folder.File("damaged.bin");
        using (var weight = arange(1000f)) PickleWriter.Write(path, [new("w", weight)]);
        byte[] bytes = File.ReadAllBytes(path);
        bytes[^1800] ^= 4;
        File.WriteAllBytes(path, bytes);
        using var reader = PickleReader.Open(path);
        Assert.Equal($"{path}: the bytes of record 'damaged/data/0' do not match their checksum. {Again}",
            Assert.Throws<PickleFormatException>(() => reader.Load("w")).Message);
    }

    [Fact]
    public void The_random_state_of_a_trainer_holds_numpy_arrays_and_is_refused()
    {
        string? path = Goldens.Roots.SelectMany(root => Directory.EnumerateFiles(root, "rng_state.pth", SearchOption.AllDirectories)).FirstOrDefault();
        Assert.SkipWhen(path is null, "no rng_state.pth among the recorded cases");
        var e = Assert.Throws<PickleRefusedException>(() => PickleFile.Open(path!));
        Assert.Equal("numpy.core.multiarray._reconstruct", e.Refused);
        Assert.Equal($"{path} asks for numpy.core.multiarray._reconstruct, which is neither a tensor nor a plain container; nothing was run. If you trust the file, load it in Python and save its tensors "
            + "alone, best as safetensors.", e.Message);
    }

    private static string Rebuilt(string offset, string shape, string strides) => "}X\u0001\0\0\0w" + Tensor(offset, shape, strides) + "s.";

    private static string Tensor(string offset, string shape, string strides)
        => "ctorch._utils\n_rebuild_tensor_v2\n((X\u0007\0\0\0storagectorch\nFloatStorage\nX\u0001\0\0\0" + "0X\u0003\0\0\0cpuK\u0006tQ"
            + $"{offset}{shape}{strides}\u0089ccollections\nOrderedDict\n)RtR";

    /// <summary>A file with a pickle given in Latin-1 and one storage, the floats 0 to 5.</summary>
    private string Write(string pickle, CompressionLevel level = CompressionLevel.NoCompression, int storage = 24)
    {
        string path = _folder.File($"{Guid.NewGuid():N}.bin");
        using var zip = ZipFile.Open(path, ZipArchiveMode.Create);
        Add(zip, "a/data.pkl", [0x80, 2, .. Encoding.Latin1.GetBytes(pickle)], level);
        Add(zip, "a/data/0", Enumerable.Range(0, 6).SelectMany(i => BitConverter.GetBytes((float)i)).Take(storage).ToArray(), level);
        return path;
    }

    private static void Add(ZipArchive zip, string name, ReadOnlySpan<byte> bytes, CompressionLevel level)
    {
        using var stream = zip.CreateEntry(name, level).Open();
        stream.Write(bytes);
    }
}
