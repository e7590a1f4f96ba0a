using BitMiracle.LibTiff.Classic;

namespace Peft.Llava;

/// <summary>How a TIFF's first page stores its samples.</summary>
internal sealed record TiffLayout(
    int Width, int Height, int Depth, int Samples, int Planes, Photometric Photometric, bool PremultipliedAlpha, bool Tiled, bool Uncompressed,
    int Orientation, IReadOnlyList<byte> Palette)
{
    /// <summary>Bits per pixel within a plane.</summary>
    public int PlaneBits => Depth * Samples / Planes;

    /// <summary>Bytes of a plane's row.</summary>
    public long RowBytes => ((long)Width * PlaneBits + 7) / 8;

    public static TiffLayout Read(Tiff tiff, DecodeContext context)
    {
        // The library opens no directory without a size, nor one of colour indices without a palette.
        FieldValue[] width = tiff.GetField(TiffTag.IMAGEWIDTH), height = tiff.GetField(TiffTag.IMAGELENGTH);
        context.CheckSize(width[0].ToUInt(), height[0].ToUInt());
        int Field(TiffTag tag) => tiff.GetFieldDefaulted(tag)?[0].ToInt() ?? 0;
        int depth = Field(TiffTag.BITSPERSAMPLE), samples = Field(TiffTag.SAMPLESPERPIXEL);
        var photometric = (Photometric)Field(TiffTag.PHOTOMETRIC);
        var compression = (Compression)Field(TiffTag.COMPRESSION);
        bool separate = Field(TiffTag.PLANARCONFIG) == (int)PlanarConfig.SEPARATE && samples > 1;
        if (photometric == Photometric.YCBCR && compression == Compression.JPEG && !separate)
        {
            tiff.SetField(TiffTag.JPEGCOLORMODE, JpegColorMode.RGB);
            photometric = Photometric.RGB;
        }
        var sampleFormat = (SampleFormat)Field(TiffTag.SAMPLEFORMAT);
        bool known = sampleFormat == SampleFormat.UINT && (photometric, depth, samples) switch
        {
            (Photometric.MINISBLACK or Photometric.MINISWHITE, 1 or 2 or 4 or 8 or 16, 1) => true,
            (Photometric.MINISBLACK, 8, 2) => true,
            (Photometric.RGB, 8 or 16, >= 3 and <= 6) => true,
            (Photometric.PALETTE, 1 or 2 or 4 or 8, 1) or (Photometric.PALETTE, 8, 2) => true,
            (Photometric.SEPARATED, 8, 4) => true,
            _ => false,
        };
        if (!known) throw context.Unsupported($"It has {samples} sample(s) of {depth} bits, {sampleFormat}, photometric {photometric}");
        return new TiffLayout(
            width[0].ToInt(), height[0].ToInt(), depth, samples, separate ? samples : 1, photometric, Premultiplied(tiff), tiff.IsTiled(),
            compression == Compression.NONE, Field(TiffTag.ORIENTATION), photometric == Photometric.PALETTE ? ReadPalette(tiff, depth) : []);
    }

    private static bool Premultiplied(Tiff tiff)
    {
        if (tiff.GetField(TiffTag.EXTRASAMPLES) is not { Length: >= 2 } extra || extra[0].ToInt() < 1) return false;
        return extra[1].ToShortArray() is { Length: > 0 } kinds && (ExtraSample)kinds[0] == ExtraSample.ASSOCALPHA;
    }

    /// <summary>The palette as RGB bytes: the high byte of each 16-bit level.</summary>
    private static byte[] ReadPalette(Tiff tiff, int depth)
    {
        var map = tiff.GetField(TiffTag.COLORMAP);
        short[][] channels = [map[0].ToShortArray(), map[1].ToShortArray(), map[2].ToShortArray()];
        byte[] palette = new byte[3 << depth];
        for (int i = 0; i < palette.Length; i++) palette[i] = (byte)((ushort)channels[i % 3][i / 3] >> 8);
        return palette;
    }
}
