using System.Buffers.Binary;
using System.IO.Compression;
using Peft.Testing;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

/// <summary>Damage to the zip file around a pickle, field by field.</summary>
public sealed class ZipDirectoryTests : IDisposable
{
    private const int Flags = 8, Method = 10, Stored = 20, Length = 24, NameLength = 28, HeaderOffset = 42, Name = 46;
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Records_that_cannot_be_read_are_named()
    {
        AssertRefused("record 'x/data.pkl' is encrypted", bytes => bytes[Central(bytes, 0) + Flags] |= 1);
        AssertRefused("record 'x/data.pkl' is compressed by method 12", bytes => bytes[Central(bytes, 0) + Method] = 12);
        AssertRefused("record 'x/data.pkl' does not stand where its zip directory says", bytes => bytes[Central(bytes, 0) + HeaderOffset] = 3);
        AssertRefused("record 'x/data.pkl' does not stand where its zip directory says", bytes => Put(bytes, Central(bytes, 0) + HeaderOffset, 99_999_999));
        AssertRefused("record 'x/data.pkl' reaches beyond the file", bytes =>
        {
            Put(bytes, Central(bytes, 0) + Stored, 99_999_999);
            Put(bytes, Central(bytes, 0) + Length, 99_999_999);
        });
        AssertRefused("record 'x/data.pkl' reaches beyond the file", bytes => bytes[Central(bytes, 0) + Length]++);
        AssertRefused("its zip directory names 'x/data/0' twice", bytes => bytes[Central(bytes, 5) + Name + 7] = (byte)'0');
        AssertRefused("its zip directory is damaged", bytes => bytes[Central(bytes, 2)] = 0);
        AssertRefused("its zip directory is damaged", bytes => Put(bytes, Central(bytes, 8) + NameLength, 60_000));
        AssertRefused("the bytes of record 'x/byteorder' do not match their checksum", bytes => bytes[bytes.AsSpan().IndexOf("little"u8)] ^= 1);
    }

    [Fact]
    public void A_directory_outside_the_file_is_refused()
    {
        const string message = "its zip directory lies outside the file";
        AssertRefused(message, bytes => bytes[End64(bytes) + 55] = 0x40);                      // offset
        AssertRefused(message, bytes => bytes[End64(bytes) + 47] = 0x80);                      // length, negative
        AssertRefused(message, bytes => bytes[End64(bytes) + 33] = 0x40);                      // more records than bytes
        AssertRefused(message, bytes => bytes[End64(bytes)] = 0);                              // locator leads nowhere
        AssertRefused(message, bytes => bytes[End64(bytes) + 56 + 15] = 0x40);                 // locator leads out
        AssertRefused(message, bytes => bytes[End64(bytes) + 56 + 15] = 0x80);                 // and to before the file
    }

    [Fact]
    public void Compressed_records_that_lie_about_their_size_are_refused()
    {
        AssertRefused("record 'x/data.pkl' cannot have 99999999 bytes, compressed to 6", bytes => Put(bytes, Central(bytes, 0) + Length, 99_999_999), deflated: true);
        AssertRefused("record 'x/data.pkl' cannot be decompressed", bytes => bytes[Central(bytes, 0) + Length] += 5, deflated: true);
        AssertRefused("the bytes of record 'x/data.pkl' do not match their checksum", bytes => bytes[Central(bytes, 0) + Length]--, deflated: true);
        string path = _folder.File("sizes.bin");
        using (var zip = ZipFile.Open(path, ZipArchiveMode.Create))
        {
            using (var stream = zip.CreateEntry("x/data.pkl").Open()) stream.Write([0x80, 2, (byte)'}', (byte)'.']);
            using (var stream = zip.CreateEntry("x/byteorder").Open()) stream.Write("little little little"u8);
        }
        Assert.Equal($"{path}: record 'x/byteorder' has 20 bytes, more than the 16 it can sensibly have. Copy or save the file again.",
            Assert.Throws<PickleFormatException>(() => PickleFile.Open(path)).Message);
    }

    [Fact]
    public void A_zip_file_with_a_comment_and_without_the_wide_directory_is_read()
    {
        string path = _folder.File("comment.bin");
        using (var zip = ZipFile.Open(path, ZipArchiveMode.Create))
        {
            zip.Comment = "a comment";
            using var stream = zip.CreateEntry("x/data.pkl", CompressionLevel.NoCompression).Open();
            stream.Write([0x80, 2, (byte)'}', (byte)'.']);
        }
        using var file = PickleFile.Open(path);
        Assert.Empty(Assert.IsType<PickleDictionary>(file.Root));
    }

    private void AssertRefused(string fault, Action<byte[]> damage, bool deflated = false)
    {
        string path = _folder.File("x.bin");
        File.Delete(path);
        if (deflated)
        {
            using var zip = ZipFile.Open(path, ZipArchiveMode.Create);
            using var stream = zip.CreateEntry("x/data.pkl").Open();
            stream.Write([0x80, 2, (byte)'}', (byte)'.']);
        }
        else
        {
            using var weight = arange(5f);
            using var other = arange(3f);
            PickleWriter.Write(path, [new("w", weight), new("v", other)]);
        }
        byte[] bytes = File.ReadAllBytes(path);
        damage(bytes);
        File.WriteAllBytes(path, bytes);
        Assert.Equal($"{path}: {fault}. Copy or save the file again.", Assert.Throws<PickleFormatException>(() => PickleFile.Open(path)).Message);
    }

    private static int Central(byte[] bytes, int record)
    {
        int at = bytes.AsSpan().IndexOf("PK\u0001\u0002"u8);
        for (; record > 0; record--) at += 4 + bytes.AsSpan(at + 4).IndexOf("PK\u0001\u0002"u8);
        return at;
    }

    private static int End64(byte[] bytes) => bytes.AsSpan().IndexOf("PK\u0006\u0006"u8);

    private static void Put(byte[] bytes, int at, int value) => BinaryPrimitives.WriteInt32LittleEndian(bytes.AsSpan(at), value);
}
