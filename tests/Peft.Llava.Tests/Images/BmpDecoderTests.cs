using System.Buffers.Binary;
using Xunit;

namespace Peft.Llava.Tests.Images;

public sealed class BmpDecoderTests
{
    private static byte[] Bmp(int width, int height, int bits, uint compression, byte[] pixels, byte[]? between = null, uint colours = 0, uint size = 40, uint? start = null)
    {
        between ??= [];
        byte[] header = new byte[14 + size];
        "BM"u8.CopyTo(header);
        BinaryPrimitives.WriteUInt32LittleEndian(header.AsSpan(10), start ?? (uint)(header.Length + between.Length));
        BinaryPrimitives.WriteUInt32LittleEndian(header.AsSpan(14), size);
        if (size == 12)
        {
            (header[18], header[20], header[22], header[24]) = ((byte)width, (byte)height, 1, (byte)bits);
            return [.. header, .. between, .. pixels];
        }
        BinaryPrimitives.WriteInt32LittleEndian(header.AsSpan(18), width);
        BinaryPrimitives.WriteInt32LittleEndian(header.AsSpan(22), height);
        BinaryPrimitives.WriteUInt16LittleEndian(header.AsSpan(28), (ushort)bits);
        BinaryPrimitives.WriteUInt32LittleEndian(header.AsSpan(30), compression);
        BinaryPrimitives.WriteUInt32LittleEndian(header.AsSpan(46), colours);
        return [.. header, .. between, .. pixels];
    }

    private static byte[] Masks(params uint[] masks)
    {
        byte[] bytes = new byte[4 * masks.Length];
        for (int i = 0; i < masks.Length; i++) BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(4 * i), masks[i]);
        return bytes;
    }

    private static byte[] Pixels(byte[] file) => ImageDecoder.Decode(file, "a").Pixels;

    [Fact]
    public void Rows_run_upwards_unless_the_height_is_negative()
    {
        byte[] rows = [1, 2, 3, 0, 4, 5, 6, 0];
        Assert.Equal([6, 5, 4, 3, 2, 1], Pixels(Bmp(1, 2, 24, 0, rows)));
        Assert.Equal([3, 2, 1, 6, 5, 4], Pixels(Bmp(1, -2, 24, 0, rows)));
    }

    [Fact]
    public void Fifteen_and_sixteen_bits_are_spread_and_rounded_down()
    {
        Assert.Equal([8 * 255 / 31, 16 * 255 / 31, 31 * 255 / 31], Pixels(Bmp(1, 1, 16, 0, [0x1f | 0, 0x22])).AsSpan().ToArray());
        Assert.Equal([4 * 255 / 31, 16 * 255 / 63, 31 * 255 / 31], Pixels(Bmp(1, 1, 16, 3, [0x1f, 0x22], Masks(0xf800, 0x7e0, 0x1f))));
    }

    [Fact]
    public void Thirty_two_bits_lie_where_the_masks_say()
    {
        Assert.Equal([3, 2, 1], Pixels(Bmp(1, 1, 32, 0, [1, 2, 3, 4])));
        Assert.Equal([4, 3, 2], Pixels(Bmp(1, 1, 32, 3, [1, 2, 3, 4], Masks(0xff000000, 0xff0000, 0xff00))));
        Assert.Equal([4, 2, 1], Pixels(Bmp(1, 1, 32, 3, [1, 2, 3, 4], Masks(0xff000000, 0xff00, 0xff))));
        Assert.Equal([3, 2, 1], Pixels(Bmp(1, 1, 32, 3, [1, 2, 3, 4], Masks(0, 0, 0))));
    }

    private static readonly byte[] Palette = [1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9, 0];

    [Fact]
    public void Indices_take_colours_and_black_beyond_them()
    {
        Assert.Equal([6, 5, 4, 0, 0, 0], Pixels(Bmp(2, 1, 4, 0, [0x13, 0, 0, 0], Palette, 3)));
        Assert.Equal([3, 2, 1, 6, 5, 4], Pixels(Bmp(2, 1, 1, 0, [0x40, 0, 0, 0], Palette[..8])));
        Assert.Equal([6, 5, 4], Pixels(Bmp(1, 1, 8, 0, [1, 0, 0, 0], Palette, 3, start: 54)));               // forgets its palette
        Assert.Equal([6, 5, 4], Pixels(Bmp(1, 1, 8, 0, [1, 0, 0, 0], [1, 2, 3, 4, 5, 6, .. new byte[762]], size: 12)));
    }

    [Fact]
    public void Runs_are_unpacked()
    {
        byte[] eight = [2, 1, 0, 0, 0, 3, 0, 1, 2, 9, 0, 2, 1, 0, 2, 2];                                      // run, end of line, single pixels, skip, run
        Assert.Equal([1, 1, 0, 0, 1, 2, 0, 2, 2], Pixels(Bmp(3, -3, 8, 1, eight, Grey(), 256)).Where((_, i) => i % 3 == 0));
        byte[] four = [3, 0x12, 0, 3, 0x34, 0x50];
        Assert.Equal([1, 2, 1, 3, 4, 5], Pixels(Bmp(6, 1, 4, 2, four, Grey()[..64], 16)).Where((_, i) => i % 3 == 0));
    }

    private static byte[] Grey() => [.. Enumerable.Range(0, 256).SelectMany(v => new byte[] { (byte)v, (byte)v, (byte)v, 0 })];

    [Fact]
    public void Faults_are_named()
    {
        static void Fault(byte[] data, ImageFault fault, string found) => ImageDecoderTests.AssertFault(data, fault, found);
        Fault(Bmp(1, 1, 24, 0, [1, 2, 3])[..17], ImageFault.Truncated, "The file ends within its header");
        Fault(Bmp(1, 1, 24, 0, [1, 2, 3])[..50], ImageFault.Truncated, "The file ends within its header");
        Fault(Bmp(1, 1, 24, 0, [1, 2, 3], size: 41), ImageFault.Unsupported, "It has an unknown header of 41 bytes");
        Fault(Bmp(0, 1, 24, 0, [1, 2, 3]), ImageFault.NoPixels, "Its header claims 0x1 pixels");
        Fault(Bmp(20000, 20000, 24, 0, [1, 2, 3]), ImageFault.TooLarge, "Its header claims 20000x20000 pixels, more than 178956970");
        Fault(Bmp(1, 1, 2, 0, [1, 2, 3]), ImageFault.Unsupported, "It has 2 bits per pixel");
        Fault(Bmp(1, 1, 24, 4, [1, 2, 3]), ImageFault.Unsupported, "It has compression 4 with 24 bits per pixel");
        Fault(Bmp(1, 1, 24, 3, [1, 2, 3]), ImageFault.Truncated, "The file ends within its header");
        Fault(Bmp(1, 1, 32, 3, [1, 2, 3, 4], Masks(0xff, 0xff00, 0xff0000)), ImageFault.Unsupported, "Its channels lie at the masks FF, FF00, FF0000, 0 of 32 bits");
        Fault(Bmp(1, 1, 8, 0, [1], Palette, 70000), ImageFault.Corrupt, "Its palette claims 70000 colours");
        Fault(Bmp(1, 1, 8, 0, [1], Palette, start: 66), ImageFault.Truncated, "The file ends within its palette");
        Fault(Bmp(2, 2, 24, 0, new byte[13]), ImageFault.Truncated, "The file holds 13 bytes of pixels where 2x2 at 24 bits need more");
        Fault(Bmp(3, 2, 8, 1, [2, 1, 0, 1], Grey(), 256), ImageFault.Truncated, "Its data end after 2 of 6 pixels");
    }
}
