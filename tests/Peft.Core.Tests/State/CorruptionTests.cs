using CsCheck;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

/// <summary>Round trips of any tensors, and files with any bytes changed: right tensors or a typed exception, nothing else.</summary>
public sealed class CorruptionTests : IDisposable
{
    private static readonly ScalarType[] Dtypes =
    [
        ScalarType.Float32, ScalarType.BFloat16, ScalarType.Float16, ScalarType.Float64, ScalarType.Int64, ScalarType.Int32, ScalarType.Int16,
        ScalarType.Int8, ScalarType.Byte, ScalarType.Bool,
    ];

    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    // Any letters, for JSON's and UTF-8's sake, but no halves of a surrogate pair: those are no text.
    private static readonly Gen<string> Names = Gen.String[Gen.OneOf(Gen.Char['\0', '\u00ff'], Gen.Char['\u0100', '\ud7ff'], Gen.Char['\ue000', '\uffff']), 0, 12];

    private static readonly Gen<Dictionary<string, (int[] Shape, int Dtype, bool Transposed)>> Sets =
        Gen.Dictionary(Names, Gen.Select(Gen.Int[0, 4].Array[0, 4], Gen.Int[0, Dtypes.Length - 1], Gen.Bool, (shape, dtype, flip) => (shape, dtype, flip)))[0, 8];

    [Fact]
    public void Any_tensors_come_back_from_both_formats()
        => Sets.Sample(
            set =>
            {
                using var scope = NewDisposeScope();
                manual_seed(set.Count);
                set.Remove("__metadata__");
                var tensors = set.ToDictionary(pair => pair.Key, pair => Make(pair.Value.Shape, Dtypes[pair.Value.Dtype], pair.Value.Transposed));
                string safe = _folder.File("any.safetensors"), pickle = _folder.File("any.bin");
                SafetensorsWriter.Write(safe, tensors);
                PickleWriter.Write(pickle, tensors);
                foreach (string path in new[] { safe, pickle })
                {
                    using var reader = TensorFiles.Open(path);
                    Assert.Equal(tensors.Keys.Order(StringComparer.Ordinal), reader.Entries.Keys.Order(StringComparer.Ordinal));
                    foreach (var (name, expected) in tensors)
                    {
                        TensorAssert.Equal(expected, reader.Load(name).In(scope), name);
                        TensorAssert.Equal(expected, reader.Map(name).In(scope), name);
                    }
                    Assert.Equal(TensorFingerprint.OfContent(tensors), TensorFingerprint.OfContent(reader));
                }
            },
            iter: 60, threads: 1);

    private static Tensor Make(int[] shape, ScalarType dtype, bool transposed)
    {
        var values = (randn([.. shape.Select(side => (long)side)]) * 50).to(dtype);
        return transposed && shape.Length > 1 ? values.transpose(0, -1) : values;
    }

    [Theory]
    [InlineData("safetensors")]
    [InlineData("bin")]
    [InlineData("deflated")]
    public void Changed_and_cut_files_give_typed_exceptions_or_tensors(string kind)
    {
        string path = _folder.File("small.bin");
        using (var scope = NewDisposeScope())
        {
            var tensors = new Dictionary<string, Tensor> { ["a.weight"] = arange(6f).view(2, 3), ["b"] = arange(5L), ["c"] = tensor(2.5f).to(ScalarType.BFloat16) };
            if (kind == "safetensors") SafetensorsWriter.Write(path, tensors, SafetensorsWriter.PyTorchMetadata);
            else PickleWriter.Write(path, tensors, orderedDict: true);
            if (kind == "deflated") Deflate(path);
        }
        byte[] whole = File.ReadAllBytes(path);
        var random = new Random(11);
        int refused = 0, read = 0;
        for (int round = 0; round < 700; round++)
        {
            byte[] bytes = (byte[])whole.Clone();
            // Every bit near the structure would take too long; chance with a seed meets all kinds of fields.
            int changes = random.Next(0, 4);
            for (int i = 0; i < changes; i++) bytes[random.Next(bytes.Length)] = round % 2 == 0 ? (byte)random.Next(256) : (byte)(bytes[random.Next(bytes.Length)] ^ (1 << random.Next(8)));
            if (changes == 0 || random.Next(10) == 0) bytes = bytes[..random.Next(bytes.Length)];
            File.WriteAllBytes(path, bytes);
            try
            {
                using var reader = TensorFiles.Open(path);
                foreach (var entry in reader.Entries.Values)
                {
                    using var loaded = reader.Load(entry.Name);
                    using var mapped = reader.Map(entry.Name);
                    Assert.Equal(entry.Shape, loaded.shape);
                    Assert.Equal(entry.Shape, mapped.shape);
                    Assert.Equal(entry.Dtype, loaded.dtype);
                    using var sum = mapped.to(ScalarType.Float32).sum();              // touches every byte
                }
                read++;
            }
            catch (PeftException)
            {
                refused++;
            }
        }
        Assert.True(refused > 100, $"only {refused} refused");
        Assert.True(read > 10, $"only {read} read");
    }

    [Fact]
    public void A_file_cut_anywhere_is_refused()
    {
        foreach (string name in new[] { "cut.safetensors", "cut.bin" })
        {
            string path = _folder.File(name);
            using (var weight = arange(6f))
            {
                if (name == "cut.bin") PickleWriter.Write(path, [new("w", weight)]);
                else SafetensorsWriter.Write(path, [new NamedTensor("w", weight)]);
            }
            byte[] whole = File.ReadAllBytes(path);
            for (int length = 0; length < whole.Length; length++)
            {
                File.WriteAllBytes(path, whole[..length]);
                Assert.StartsWith(path + ": ", Assert.ThrowsAny<TensorFileException>(() => TensorFiles.Open(path)).Message, StringComparison.Ordinal);
            }
        }
    }

    private static void Deflate(string path)
    {
        var records = new List<(string Name, byte[] Bytes)>();
        using (var zip = System.IO.Compression.ZipFile.OpenRead(path))
        {
            foreach (var entry in zip.Entries)
            {
                using var stream = entry.Open();
                using var memory = new MemoryStream();
                stream.CopyTo(memory);
                records.Add((entry.FullName, memory.ToArray()));
            }
        }
        File.Delete(path);
        using var output = System.IO.Compression.ZipFile.Open(path, System.IO.Compression.ZipArchiveMode.Create);
        foreach (var (name, bytes) in records)
        {
            using var stream = output.CreateEntry(name).Open();
            stream.Write(bytes);
        }
    }
}
