using BitMiracle.LibTiff.Classic;
using Xunit;

namespace Peft.Llava.Tests.Images;

public sealed class TiffDecoderTests
{
    /// <summary>Writes a TIFF by the library's own writer.</summary>
    private static byte[] Write(int width, int height, int depth, int samples, Photometric photometric, byte[] raster, Action<Tiff>? more = null, Compression compression = Compression.LZW)
    {
        using var stream = new MemoryStream();
        using (var tiff = Tiff.ClientOpen("a", "w", stream, new TiffStream()))
        {
            tiff.SetField(TiffTag.IMAGEWIDTH, width);
            tiff.SetField(TiffTag.IMAGELENGTH, height);
            tiff.SetField(TiffTag.BITSPERSAMPLE, depth);
            tiff.SetField(TiffTag.SAMPLESPERPIXEL, samples);
            tiff.SetField(TiffTag.PHOTOMETRIC, photometric);
            tiff.SetField(TiffTag.COMPRESSION, compression);
            tiff.SetField(TiffTag.PLANARCONFIG, PlanarConfig.CONTIG);
            tiff.SetField(TiffTag.ROWSPERSTRIP, 1);
            more?.Invoke(tiff);
            int row = raster.Length / height;
            if (tiff.IsTiled()) tiff.WriteTile(raster, 0, 0, 0, 0);
            else for (int y = 0; y < height; y++) tiff.WriteScanline(raster[(row * y)..(row * (y + 1))], y);
        }
        return stream.ToArray();
    }

    private static byte[] Pixels(byte[] file) => ImageDecoder.Decode(file, "a").Pixels;

    [Theory]
    [InlineData(Compression.NONE)]
    [InlineData(Compression.LZW)]
    [InlineData(Compression.ADOBE_DEFLATE)]
    [InlineData(Compression.PACKBITS)]
    public void Rgb_in_several_compressions(Compression compression)
        => Assert.Equal([1, 2, 3, 4, 5, 6], Pixels(Write(1, 2, 8, 3, Photometric.RGB, [1, 2, 3, 4, 5, 6], compression: compression)));

    [Fact]
    public void Grey_kinds()
    {
        Assert.Equal([7, 7, 7], Pixels(Write(1, 1, 8, 1, Photometric.MINISBLACK, [7])));
        Assert.Equal([248, 248, 248], Pixels(Write(1, 1, 8, 1, Photometric.MINISWHITE, [7])));
        Assert.Equal([255, 255, 255, 0, 0, 0], Pixels(Write(2, 1, 1, 1, Photometric.MINISBLACK, [0x80])));
        Assert.Equal([85, 85, 85, 170, 170, 170], Pixels(Write(2, 1, 2, 1, Photometric.MINISBLACK, [0x60])));
        Assert.Equal([200, 200, 200, 255, 255, 255], Pixels(Write(2, 1, 16, 1, Photometric.MINISBLACK, [200, 0, 44, 1])));
        Assert.Equal([9, 9, 9], Pixels(Write(1, 1, 8, 2, Photometric.MINISBLACK, [9, 100], t => t.SetField(TiffTag.EXTRASAMPLES, 1, new short[] { 2 }))));
    }

    [Fact]
    public void Colour_kinds()
    {
        Assert.Equal([1, 2, 3], Pixels(Write(1, 1, 16, 3, Photometric.RGB, [9, 1, 9, 2, 9, 3])));
        Assert.Equal([10, 20, 30], Pixels(Write(1, 1, 8, 4, Photometric.RGB, [10, 20, 30, 100], t => t.SetField(TiffTag.EXTRASAMPLES, 1, new short[] { 2 }))));
        byte[] premultiplied = Write(3, 1, 8, 4, Photometric.RGB, [10, 20, 130, 100, 5, 6, 7, 0, 5, 6, 7, 255], t => t.SetField(TiffTag.EXTRASAMPLES, 1, new short[] { 1 }));
        Assert.Equal([25, 51, 255, 0, 0, 0, 5, 6, 7], Pixels(premultiplied));
        Assert.Equal([141, 117, 92], Pixels(Write(1, 1, 8, 4, Photometric.SEPARATED, [80, 110, 140, 50])));
        ushort[] red = new ushort[256], green = new ushort[256], blue = new ushort[256];
        (red[3], green[3], blue[3]) = (0x1234, 0x5678, 0xff01);
        Assert.Equal([0x12, 0x56, 0xff], Pixels(Write(1, 1, 8, 1, Photometric.PALETTE, [3], t => t.SetField(TiffTag.COLORMAP, red, green, blue))));
    }

    [Fact]
    public void Separate_planes_and_tiles()
    {
        using var stream = new MemoryStream();
        using (var tiff = Tiff.ClientOpen("a", "w", stream, new TiffStream()))
        {
            tiff.SetField(TiffTag.IMAGEWIDTH, 2);
            tiff.SetField(TiffTag.IMAGELENGTH, 1);
            tiff.SetField(TiffTag.BITSPERSAMPLE, 8);
            tiff.SetField(TiffTag.SAMPLESPERPIXEL, 3);
            tiff.SetField(TiffTag.PHOTOMETRIC, Photometric.RGB);
            tiff.SetField(TiffTag.PLANARCONFIG, PlanarConfig.SEPARATE);
            tiff.SetField(TiffTag.ROWSPERSTRIP, 1);
            for (short plane = 0; plane < 3; plane++) tiff.WriteScanline([(byte)(plane + 1), (byte)(plane + 11)], 0, plane);
        }
        Assert.Equal([1, 2, 3, 11, 12, 13], Pixels(stream.ToArray()));
        byte[] tile = new byte[16 * 16 * 3];
        for (int i = 0; i < tile.Length; i++) tile[i] = (byte)i;
        var image = ImageDecoder.Decode(Write(5, 3, 8, 3, Photometric.RGB, tile, t =>
        {
            t.SetField(TiffTag.TILEWIDTH, 16);
            t.SetField(TiffTag.TILELENGTH, 16);
        }), "a");
        for (int y = 0; y < 3; y++) Assert.Equal(tile[(48 * y)..(48 * y + 15)], image.Row(y).ToArray());
    }

    /// <summary>Six pixels, numbered row by row, seen through each orientation.</summary>
    [Theory]
    [InlineData(1, "123 456")]
    [InlineData(2, "321 654")]
    [InlineData(3, "654 321")]
    [InlineData(4, "456 123")]
    [InlineData(5, "14 25 36")]
    [InlineData(6, "41 52 63")]
    [InlineData(7, "63 52 41")]
    [InlineData(8, "36 25 14")]
    public void The_orientation_tag_is_applied(int orientation, string expected)
    {
        var image = ImageDecoder.Decode(
            Write(3, 2, 8, 1, Photometric.MINISBLACK, [1, 2, 3, 4, 5, 6], t => t.SetField(TiffTag.ORIENTATION, orientation)), "a");
        var rows = Enumerable.Range(0, image.Height).Select(y => string.Concat(Enumerable.Range(0, image.Width).Select(x => image.Row(y)[3 * x])));
        Assert.Equal(expected, string.Join(" ", rows));
    }

    [Fact]
    public void Faults_are_named()
    {
        byte[] whole = Write(3, 2, 8, 3, Photometric.RGB, [.. Enumerable.Range(0, 18).Select(v => (byte)v)], compression: Compression.NONE);
        ImageDecoderTests.AssertFault("II*\0"u8, ImageFault.Corrupt, "Its directory cannot be read");
        ImageDecoderTests.AssertFault(
            Write(1, 1, 32, 1, Photometric.MINISBLACK, [1, 2, 3, 4]), ImageFault.Unsupported, "It has 1 sample(s) of 32 bits, UINT, photometric MINISBLACK");
        ImageDecoderTests.AssertFault(With(whole, 0x100, 20000, 0x101, 20000), ImageFault.TooLarge, "Its header claims 20000x20000 pixels, more than 178956970");
        ImageDecoderTests.AssertFault(With(whole, 0x100, 9000), ImageFault.Truncated, $"Its header claims 9000x2 pixels, more than its {whole.Length} bytes can hold");
        ImageDecoderTests.AssertFault(With(whole, 0x111, 9000), ImageFault.Truncated, "Strip 0 is damaged or cut short");
        Assert.Equal(18, Pixels(whole).Length);
        byte[] tiled = Write(5, 3, 8, 3, Photometric.RGB, new byte[16 * 16 * 3], t =>
        {
            t.SetField(TiffTag.TILEWIDTH, 16);
            t.SetField(TiffTag.TILELENGTH, 16);
        });
        byte[] indexed = Write(1, 1, 8, 1, Photometric.PALETTE, [3], t => t.SetField(TiffTag.COLORMAP, new ushort[256], new ushort[256], new ushort[256]));
        Assert.Multiple(
            () => ImageDecoderTests.AssertFault(With(Write(1, 1, 16, 6, Photometric.RGB, new byte[12]), 0x100, 14439, 0x101, 12394), ImageFault.TooLarge, "Its samples take 2147483592 bytes"),
            () => ImageDecoderTests.AssertFault(With(tiled, 0x144, 90000), ImageFault.Truncated, "The tile at 0, 0 is damaged or cut short"),
            () => ImageDecoderTests.AssertFault(With(tiled, 0x142, 0), ImageFault.Corrupt, "Its directory cannot be read"),
            () => ImageDecoderTests.AssertFault([.. whole[..7], 0xff, .. whole[8..]], ImageFault.Corrupt, "Its data cannot be decoded"),        // a directory before the file
            () => ImageDecoderTests.AssertFault(Renamed(whole, 0x100, 0xff), ImageFault.Corrupt, "Its directory cannot be read"),
            () => ImageDecoderTests.AssertFault(Renamed(indexed, 0x140, 0x13f), ImageFault.Corrupt, "Its directory cannot be read"));
    }

    /// <summary>Gives an entry of the directory another tag.</summary>
    private static byte[] Renamed(byte[] file, int tag, int other)
    {
        byte[] copy = (byte[])file.Clone();
        int directory = BitConverter.ToInt32(copy, 4);
        for (int i = 0; i < BitConverter.ToUInt16(copy, directory); i++)
        {
            int entry = directory + 2 + 12 * i;
            if (BitConverter.ToUInt16(copy, entry) == tag) BitConverter.TryWriteBytes(copy.AsSpan(entry), (ushort)other);
        }
        return copy;
    }

    /// <summary>Changes values in the directory of a little-endian file: pairs of tag and value.</summary>
    private static byte[] With(byte[] file, params int[] tagsAndValues)
    {
        byte[] copy = (byte[])file.Clone();
        int directory = BitConverter.ToInt32(copy, 4);
        for (int i = 0; i < BitConverter.ToUInt16(copy, directory); i++)
        {
            int entry = directory + 2 + 12 * i;
            int at = Array.IndexOf(tagsAndValues, BitConverter.ToUInt16(copy, entry));
            if (at < 0 || at % 2 != 0) continue;
            int count = BitConverter.ToInt32(copy, entry + 4);
            int place = count > 1 ? BitConverter.ToInt32(copy, entry + 8) : entry + 8;
            if (BitConverter.ToUInt16(copy, entry + 2) == 3) BitConverter.TryWriteBytes(copy.AsSpan(place), (ushort)tagsAndValues[at + 1]);
            else BitConverter.TryWriteBytes(copy.AsSpan(place), tagsAndValues[at + 1]);
        }
        return copy;
    }
}
