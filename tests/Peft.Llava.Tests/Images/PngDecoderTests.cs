using System.Buffers.Binary;
using System.IO.Compression;
using Xunit;

namespace Peft.Llava.Tests.Images;

public sealed class PngDecoderTests
{
    private static readonly byte[] Signature = [0x89, (byte)'P', (byte)'N', (byte)'G', 13, 10, 26, 10];

    /// <summary>A grey picture of 5 x 3 with 8 bits.</summary>
    private static byte[] Header(uint width = 5, uint height = 3, byte depth = 8, byte colour = 0, byte filter = 0, byte interlace = 0)
    {
        byte[] header = new byte[13];
        BinaryPrimitives.WriteUInt32BigEndian(header, width);
        BinaryPrimitives.WriteUInt32BigEndian(header.AsSpan(4), height);
        (header[8], header[9], header[11], header[12]) = (depth, colour, filter, interlace);
        return Chunk("IHDR", header);
    }

    private static byte[] Chunk(string name, byte[] content, bool wrongChecksum = false)
    {
        byte[] chunk = new byte[12 + content.Length];
        BinaryPrimitives.WriteUInt32BigEndian(chunk, (uint)content.Length);
        System.Text.Encoding.ASCII.GetBytes(name, chunk.AsSpan(4));
        content.CopyTo(chunk, 8);
        BinaryPrimitives.WriteUInt32BigEndian(chunk.AsSpan(8 + content.Length), Crc(chunk.AsSpan(4, 4 + content.Length)) ^ (wrongChecksum ? 1u : 0));
        return chunk;
    }

    private static uint Crc(ReadOnlySpan<byte> data)
    {
        uint crc = uint.MaxValue;
        foreach (byte b in data)
        {
            crc ^= b;
            for (int bit = 0; bit < 8; bit++) crc = (crc & 1) != 0 ? 0xedb88320 ^ (crc >> 1) : crc >> 1;
        }
        return ~crc;
    }

    private static byte[] Pack(params byte[] rows)
    {
        using var packed = new MemoryStream();
        using (var deflate = new ZLibStream(packed, CompressionLevel.Optimal)) deflate.Write(rows);
        return packed.ToArray();
    }

    private static byte[] Data(params byte[] rows) => Chunk("IDAT", Pack(rows));

    private static byte[] Png(params byte[][] chunks) => [.. Signature, .. chunks.SelectMany(c => c)];

    private static readonly byte[] ThreeRows = [0, 1, 2, 3, 4, 5, 0, 6, 7, 8, 9, 10, 0, 11, 12, 13, 14, 15];

    private static void AssertFault(byte[] data, ImageFault fault, string found) => ImageDecoderTests.AssertFault(data, fault, found);

    [Fact]
    public void A_whole_picture_is_read_also_without_its_end()
    {
        byte[] whole = Png(Header(), Data(ThreeRows), Chunk("IEND", []));
        byte[] expected = [.. Enumerable.Range(1, 15).SelectMany(v => new[] { (byte)v, (byte)v, (byte)v })];
        Assert.Equal(expected, ImageDecoder.Decode(whole, "a").Pixels);
        Assert.Equal(expected, ImageDecoder.Decode(whole.AsSpan(0, whole.Length - 12), "a").Pixels);
        Assert.Equal(expected, ImageDecoder.Decode(Png(Header(), Data(ThreeRows), Chunk("tEXt", [1, 2, 3], wrongChecksum: true)), "a").Pixels);
        Assert.Equal(expected, ImageDecoder.Decode([.. whole, 1, 2, 3], "a").Pixels);
        Assert.Equal(expected, ImageDecoder.Decode(Png(Header(), Chunk("IDAT", []), Data(ThreeRows)), "a").Pixels);
    }

    [Fact]
    public void Colours_beyond_the_palette_are_black()
    {
        var image = ImageDecoder.Decode(Png(Header(2, 1, 8, 3), Chunk("PLTE", [9, 8, 7, 6, 5, 4]), Data(0, 1, 2)), "a");
        Assert.Equal([6, 5, 4, 0, 0, 0], image.Pixels);
    }

    [Fact]
    public void Grey_of_16_bits_with_alpha_keeps_the_high_byte()
        => Assert.Equal([7, 7, 7], ImageDecoder.Decode(Png(Header(1, 1, 16, 4), Data(0, 7, 200, 1, 2)), "a").Pixels);

    [Fact]
    public void Interlaced_pictures_smaller_than_the_raster_are_read()
    {
        var image = ImageDecoder.Decode(Png(Header(2, 1, 8, 0, interlace: 1), Data(0, 30, 0, 40)), "a");
        Assert.Equal([30, 30, 30, 40, 40, 40], image.Pixels);
    }

    [Fact]
    public void Faults_of_the_header()
    {
        AssertFault(Png(), ImageFault.Truncated, "The file ends before its picture data");
        AssertFault(Png(Header()), ImageFault.Truncated, "The file ends before its picture data");
        AssertFault(Png(Header())[..20], ImageFault.Truncated, "The file ends within its IHDR chunk");
        AssertFault(Png(Chunk("IHDR", new byte[12])), ImageFault.Corrupt, "Its IHDR chunk has 12 bytes instead of 13");
        AssertFault(Png(Header(0, 3)), ImageFault.NoPixels, "Its header claims 0x3 pixels");
        AssertFault(Png(Header(13378, 13378)), ImageFault.TooLarge, "Its header claims 13378x13378 pixels, more than 178956970");
        AssertFault(Png(Header(uint.MaxValue, uint.MaxValue)), ImageFault.TooLarge, "Its header claims 4294967295x4294967295 pixels, more than 178956970");
        AssertFault(Png(Header(depth: 4, colour: 2)), ImageFault.Corrupt, "There is no colour type 2 with 4 bits");
        AssertFault(Png(Header(filter: 1)), ImageFault.Corrupt, "There is no filter method 1");
        AssertFault(Png(Data(ThreeRows)), ImageFault.Corrupt, "It has no IHDR chunk");
        AssertFault(Png(Header(), Chunk("IEND", [])), ImageFault.Corrupt, "Its IEND chunk comes before any picture data");
        AssertFault(Png(Header(), Chunk("fdAT", [0, 0, 0, 1])), ImageFault.Corrupt, "Its fdAT chunk comes before any picture data");
        AssertFault(Png(Header(), Chunk("tEXt", [1], wrongChecksum: true), Data(ThreeRows)), ImageFault.Corrupt, "The checksum of its tEXt chunk is wrong");
        AssertFault(Png(Header(), Chunk("gAMA", [1, 2, 3]), Data(ThreeRows)), ImageFault.Corrupt, "Its gAMA chunk has 3 bytes instead of 4");
        AssertFault(Png(Header(), Chunk("a-b\0", []), Data(ThreeRows)), ImageFault.Corrupt, "At byte 33 there is no chunk but 612D6200");
        AssertFault(Png(Header(colour: 3), Data(ThreeRows)), ImageFault.Corrupt, "It has colour indices but no palette");
        AssertFault(Png(Header(colour: 3), Chunk("PLTE", new byte[771]), Data(ThreeRows)), ImageFault.Corrupt, "Its palette has 771 bytes, more than 256 colours");
    }

    [Fact]
    public void Faults_of_the_data()
    {
        AssertFault(Png(Header(), Data(ThreeRows[..17])), ImageFault.Truncated, "Its picture data end before the picture does");
        AssertFault(Png(Header(), Data(5, 1, 2, 3, 4, 5)), ImageFault.Corrupt, "There is no row filter 5");
        AssertFault(Png(Header(), Chunk("IDAT", [1, 2, 3, 4])), ImageFault.Corrupt, "Its compressed data are damaged");
        AssertFault(Png(Header(13000, 13000), Data(ThreeRows)), ImageFault.Truncated,
            $"Its header claims 13000x13000 pixels, more than its {Pack(ThreeRows).Length} bytes of data can hold");
        AssertFault(Png(Header(), Data(ThreeRows), Chunk("tEXt", new byte[40])[..30]), ImageFault.Truncated, "The file ends within its tEXt chunk");
    }
}
