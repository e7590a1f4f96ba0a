using System.Runtime.InteropServices;
using BitMiracle.LibTiff.Classic;

namespace Peft.Llava;

/// <summary>Turns a TIFF's samples into RGB as Pillow does.</summary>
internal static class TiffColours
{
    public static void ToRgb(byte[] raster, TiffLayout layout, RgbImage image)
    {
        Span<byte> pixel = stackalloc byte[8];
        for (int y = 0; y < image.Height; y++)
        {
            var row = image.Row(y);
            for (int x = 0; x < image.Width; x++)
            {
                for (int s = 0; s < layout.Samples; s++) pixel[s] = Sample(raster, layout, x, y, s);
                Convert(pixel, layout, row.Slice(3 * x, 3));
            }
        }
    }

    private static void Convert(ReadOnlySpan<byte> pixel, TiffLayout layout, Span<byte> rgb)
    {
        switch (layout.Photometric)
        {
            case Photometric.RGB:
                pixel[..3].CopyTo(rgb);
                if (layout.PremultipliedAlpha && layout.Samples > 3) Divide(rgb, pixel[3]);
                break;
            case Photometric.SEPARATED:
                Cmyk(pixel, rgb);
                break;
            case Photometric.PALETTE:
                for (int c = 0; c < 3; c++) rgb[c] = layout.Palette[3 * pixel[0] + c];
                break;
            default:
                int step = layout.Depth >= 8 ? 1 : 255 / ((1 << layout.Depth) - 1);
                byte level = (byte)(pixel[0] * step);
                // Pillow does not turn 16-bit grey round.
                rgb.Fill(layout.Photometric == Photometric.MINISWHITE && layout.Depth < 16 ? (byte)~level : level);
                break;
        }
    }

    /// <summary>A sample: as it is up to 8 bits; of 16 the high byte, or min(value, 255) for grey.</summary>
    private static byte Sample(byte[] raster, TiffLayout layout, int x, int y, int sample)
    {
        bool together = layout.Planes == 1;
        long start = layout.RowBytes * (together ? y : (long)layout.Height * sample + y);
        int index = together ? x * layout.Samples + sample : x;
        if (layout.Depth == 16)
        {
            ushort value = MemoryMarshal.Read<ushort>(raster.AsSpan((int)(start + 2L * index)));     // in the machine's order
            return layout.Samples == 1 ? (byte)Math.Min(value, (ushort)255) : (byte)(value >> 8);
        }
        long bit = (long)index * layout.Depth;
        return (byte)((raster[start + (bit >> 3)] >> (8 - layout.Depth - (int)(bit & 7))) & ((1 << layout.Depth) - 1));
    }

    private static void Divide(Span<byte> rgb, int alpha)
    {
        if (alpha == 255) return;
        for (int c = 0; c < 3; c++) rgb[c] = alpha == 0 ? (byte)0 : (byte)Math.Min(255, 255 * rgb[c] / alpha);
    }

    /// <summary>Plain CMYK, without a profile.</summary>
    private static void Cmyk(ReadOnlySpan<byte> cmyk, Span<byte> rgb)
    {
        int rest = 255 - cmyk[3];
        for (int c = 0; c < 3; c++)
        {
            int t = cmyk[c] * rest + 128;
            rgb[c] = (byte)Math.Clamp(rest - (((t >> 8) + t) >> 8), 0, 255);
        }
    }
}
