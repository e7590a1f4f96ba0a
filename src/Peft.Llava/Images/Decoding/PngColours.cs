namespace Peft.Llava;

/// <summary>Turns unfiltered PNG rows into RGB.</summary>
internal readonly ref struct PngColours(PngHeader header, ReadOnlySpan<byte> palette)
{
    private readonly ReadOnlySpan<byte> _palette = palette;

    /// <summary>One row, or one row of an interlace pass.</summary>
    /// <param name="row">Packed samples.</param>
    /// <param name="rgb">Receives 3 bytes per pixel; its length says how many pixels.</param>
    public void ToRgb(ReadOnlySpan<byte> row, Span<byte> rgb)
    {
        int pixels = rgb.Length / 3;
        switch (header.ColourType, header.Depth)
        {
            case (2, 8):
                row[..rgb.Length].CopyTo(rgb);
                break;
            case (6, 8):
                SkiaDecoder.DropAlpha(row, rgb);
                break;
            case (2 or 6, _):                                         // 16 bits: the high byte
                for (int i = 0, from = 0; i < rgb.Length; i += 3, from += 2 * header.Channels)
                    (rgb[i], rgb[i + 1], rgb[i + 2]) = (row[from], row[from + 2], row[from + 4]);
                break;
            case (3, _):
                for (int i = 0; i < pixels; i++)
                {
                    int at = 3 * Sample(row, i);
                    if (at + 3 <= _palette.Length) _palette.Slice(at, 3).CopyTo(rgb[(3 * i)..]);
                    else rgb.Slice(3 * i, 3).Clear();                 // beyond the palette: black
                }
                break;
            case (4, _):
                for (int i = 0; i < pixels; i++) Grey(rgb, i, row[i * header.Bits / 8]);
                break;
            case (_, 16):
                for (int i = 0; i < pixels; i++) Grey(rgb, i, row[2 * i] != 0 ? (byte)255 : row[2 * i + 1]);
                break;
            default:
                int step = 255 / ((1 << header.Depth) - 1);
                for (int i = 0; i < pixels; i++) Grey(rgb, i, (byte)(Sample(row, i) * step));
                break;
        }
    }

    private static void Grey(Span<byte> rgb, int pixel, byte level)
    {
        int at = 3 * pixel;
        rgb[at] = rgb[at + 1] = rgb[at + 2] = level;
    }

    /// <summary>A sample of 1, 2, 4 or 8 bits.</summary>
    private int Sample(ReadOnlySpan<byte> row, int index)
    {
        int bit = index * header.Depth;
        return (row[bit >> 3] >> (8 - header.Depth - (bit & 7))) & ((1 << header.Depth) - 1);
    }
}
