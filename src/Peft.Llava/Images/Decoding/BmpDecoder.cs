using System.Buffers.Binary;
using System.Numerics;

namespace Peft.Llava;

/// <summary>Windows bitmaps with Pillow's semantics; a fourth channel is dropped.</summary>
internal static class BmpDecoder
{
    public static RgbImage Decode(ReadOnlySpan<byte> data, DecodeContext context)
    {
        var header = BmpHeader.Read(data, context);
        var pixels = data[header.PixelStart..];
        byte[]? indices = null;
        if (header.Compression is BmpHeader.Packing.Rle8 or BmpHeader.Packing.Rle4) indices = Runs(data, header, context);
        else if (header.Stride * (header.Height - 1) + header.RowBytes > pixels.Length)
            throw context.Truncated($"The file holds {pixels.Length} bytes of pixels where {header.Width}x{header.Height} at {header.Bits} bits need more");
        Span<byte> colours = stackalloc byte[768];
        if (header.Bits <= 8) Palette(data, header, colours, context);
        var image = DecodeContext.NewImage(header.Width, header.Height);
        for (int y = 0; y < header.Height; y++)
        {
            var to = image.Row(header.TopDown ? y : header.Height - 1 - y);
            if (indices is not null) Indexed(indices.AsSpan(header.Width * y, header.Width), 8, colours, to);
            else if (header.Bits <= 8) Indexed(pixels[(int)(header.Stride * y)..], header.Bits, colours, to);
            else Direct(pixels[(int)(header.Stride * y)..], header, to);
        }
        return image;
    }

    /// <summary>The colours as RGB; black beyond them.</summary>
    private static void Palette(ReadOnlySpan<byte> data, BmpHeader header, Span<byte> colours, DecodeContext context)
    {
        if (header.PaletteStart + header.PaletteStep * header.Colours > data.Length) throw context.Truncated("The file ends within its palette");
        colours.Clear();
        for (int i = 0; i < header.Colours; i++)
        {
            var bgr = data.Slice(header.PaletteStart + header.PaletteStep * i, 3);
            (colours[3 * i], colours[3 * i + 1], colours[3 * i + 2]) = (bgr[2], bgr[1], bgr[0]);
        }
    }

    private static void Indexed(ReadOnlySpan<byte> row, int bits, ReadOnlySpan<byte> colours, Span<byte> rgb)
    {
        int mask = (1 << bits) - 1;
        for (int x = 0, bit = 0; x < rgb.Length / 3; x++, bit += bits)
            colours.Slice(3 * ((row[bit >> 3] >> (8 - bits - (bit & 7))) & mask), 3).CopyTo(rgb[(3 * x)..]);
    }

    private static void Direct(ReadOnlySpan<byte> row, BmpHeader header, Span<byte> rgb)
    {
        int step = header.Bits / 8;
        if (step == 2)
        {
            for (int i = 0; i < rgb.Length; i += 3, row = row[2..])
            {
                uint pixel = BinaryPrimitives.ReadUInt16LittleEndian(row);
                (rgb[i], rgb[i + 1], rgb[i + 2]) = (Spread(pixel, header.Red), Spread(pixel, header.Green), Spread(pixel, header.Blue));
            }
            return;
        }
        int red = BitOperations.TrailingZeroCount(header.Red) / 8, green = BitOperations.TrailingZeroCount(header.Green) / 8, blue = BitOperations.TrailingZeroCount(header.Blue) / 8;
        for (int i = 0, from = 0; i < rgb.Length; i += 3, from += step)
            (rgb[i], rgb[i + 1], rgb[i + 2]) = (row[from + red], row[from + green], row[from + blue]);
    }

    /// <summary>A channel of five or six bits spread to 0..255, rounded down.</summary>
    private static byte Spread(uint pixel, uint mask)
    {
        int shift = BitOperations.TrailingZeroCount(mask);
        return (byte)(((pixel & mask) >> shift) * 255 / (mask >> shift));
    }

    /// <summary>Run-length coded indices, in the file's row order.</summary>
    private static byte[] Runs(ReadOnlySpan<byte> data, BmpHeader header, DecodeContext context)
    {
        bool four = header.Compression == BmpHeader.Packing.Rle4;
        byte[] indices = new byte[header.Width * header.Height];
        int at = header.PixelStart, done = 0, x = 0;
        while (done < indices.Length)
        {
            if (at + 2 > data.Length) break;
            int count = data[at], value = data[at + 1];
            at += 2;
            if (count > 0)
            {
                count = Math.Min(Math.Min(count, Math.Max(0, header.Width - x)), indices.Length - done);
                for (int i = 0; i < count; i++) indices[done++] = (byte)(!four ? value : i % 2 == 0 ? value >> 4 : value & 15);
                x += count;
                continue;
            }
            if (value == 1) break;
            if (value == 0)
            {
                done += (header.Width - done % header.Width) % header.Width;
                x = 0;
            }
            else if (value == 2)
            {
                if (at + 2 > data.Length) break;
                done = (int)Math.Min(done + data[at] + (long)data[at + 1] * header.Width, indices.Length);
                x = done % header.Width;
                at += 2;
            }
            else
            {
                int pixels = Math.Min(value, indices.Length - done);
                int bytes = four ? (pixels + 1) / 2 : pixels;
                if (at + bytes > data.Length) break;
                for (int i = 0; i < pixels; i++) indices[done++] = !four ? data[at + i] : (byte)(i % 2 == 0 ? data[at + i / 2] >> 4 : data[at + i / 2] & 15);
                x += value;
                at += bytes;
                at += at & 1;                                        // runs of single pixels end at even places
            }
        }
        return done == indices.Length ? indices : throw context.Truncated($"Its data end after {done} of {indices.Length} pixels");
    }
}
