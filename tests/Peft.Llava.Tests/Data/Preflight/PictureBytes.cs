using System.Buffers.Binary;
using System.IO.Compression;
using System.Text;

namespace Peft.Llava.Tests.Data;

/// <summary>Picture files made byte by byte: sound ones, odd ones and damaged ones.</summary>
internal static class PictureBytes
{
    /// <summary>A grey PNG of 5 x 3 pixels.</summary>
    public static byte[] Png(byte depth = 8, uint width = 5, uint height = 3, params byte[][] more)
    {
        byte[] header = new byte[13];
        BinaryPrimitives.WriteUInt32BigEndian(header, width);
        BinaryPrimitives.WriteUInt32BigEndian(header.AsSpan(4), height);
        header[8] = depth;
        byte[] rows = [.. Enumerable.Range(0, 3).SelectMany(y => Enumerable.Range(0, 1 + 5 * depth / 8).Select(x => (byte)(x == 0 ? 0 : 17 * x + y)))];
        using var packed = new MemoryStream();
        using (var deflate = new ZLibStream(packed, CompressionLevel.Optimal)) deflate.Write(rows);
        return [0x89, (byte)'P', (byte)'N', (byte)'G', 13, 10, 26, 10, .. Chunk("IHDR", header), .. more.SelectMany(c => c), .. Chunk("IDAT", packed.ToArray()), .. Chunk("IEND", [])];
    }

    /// <summary>A PNG's chunk.</summary>
    public static byte[] Chunk(string name, byte[] content)
    {
        byte[] named = [.. Encoding.ASCII.GetBytes(name), .. content];
        uint crc = uint.MaxValue;
        foreach (byte b in named)
        {
            crc ^= b;
            for (int bit = 0; bit < 8; bit++) crc = (crc & 1) != 0 ? 0xedb88320 ^ (crc >> 1) : crc >> 1;
        }
        byte[] chunk = new byte[8 + named.Length];
        BinaryPrimitives.WriteUInt32BigEndian(chunk, (uint)content.Length);
        named.CopyTo(chunk, 4);
        BinaryPrimitives.WriteUInt32BigEndian(chunk.AsSpan(4 + named.Length), ~crc);
        return chunk;
    }

    /// <summary>An EXIF block that holds an orientation after another tag.</summary>
    public static byte[] Exif(byte orientation, bool little) => Directory(little, [(271, 2, 1, 0), (274, 3, 1, orientation)], []);

    /// <summary>A JPEG's APP1 segment.</summary>
    public static byte[] App1(byte[] exif) => [0xff, 0xe1, (byte)((exif.Length + 8) >> 8), (byte)(exif.Length + 8), .. "Exif\0\0"u8, .. exif];

    /// <summary>A WebP's container: what its header says is read without decoding.</summary>
    public static byte[] WebP(byte[] exif)
        => [.. "RIFF"u8, 0, 0, 0, 0, .. "WEBP"u8, .. "ICCP"u8, 3, 0, 0, 0, 1, 2, 3, 0, .. "EXIF"u8, (byte)exif.Length, 0, 0, 0, .. exif];

    /// <summary>An uncompressed TIFF of 2 x 1 pixels in inks; little-endian.</summary>
    public static byte[] CmykTiff()
    {
        byte[] bits = [8, 0, 8, 0, 8, 0, 8, 0], pixels = [10, 20, 30, 40, 50, 60, 70, 80];
        // 8 bytes of header, a directory of 10 entries, then the bits and the pixels.
        int bitsAt = 8 + 2 + 12 * 10 + 4;
        return Directory(true, [(256, 3, 1, 2), (257, 3, 1, 1), (258, 3, 4, bitsAt), (259, 3, 1, 1), (262, 3, 1, 5), (273, 4, 1, bitsAt + 8),
            (277, 3, 1, 4), (278, 3, 1, 1), (279, 4, 1, 8), (284, 3, 1, 1)], [.. bits, .. pixels]);
    }

    private static byte[] Directory(bool little, (int Tag, int Type, int Count, int Value)[] entries, byte[] rest)
    {
        byte[] Number(int value, int size)
        {
            byte[] bytes = [.. Enumerable.Range(0, size).Select(i => (byte)(value >> (8 * i)))];
            return little ? bytes : [.. bytes.Reverse()];
        }

        byte[] Value(int type, int count, int value) => type == 3 && count == 1 ? [.. Number(value, 2), 0, 0] : Number(value, 4);

        return [.. little ? "II"u8 : "MM"u8, .. Number(42, 2), .. Number(8, 4), .. Number(entries.Length, 2),
            .. entries.SelectMany(e => (byte[])[.. Number(e.Tag, 2), .. Number(e.Type, 2), .. Number(e.Count, 4), .. Value(e.Type, e.Count, e.Value)]), 0, 0, 0, 0, .. rest];
    }
}
