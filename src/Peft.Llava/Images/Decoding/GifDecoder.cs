using System.Buffers.Binary;

namespace Peft.Llava;

/// <summary>
/// The first frame of a GIF with Pillow's semantics: a transparent colour is a colour like any other, what the frame leaves open has the
/// transparent colour if there is one, else colour 0.
/// </summary>
internal static class GifDecoder
{
    /// <summary>A code of two bits at least gives at most a table's length of pixels.</summary>
    private const long MostPixelsPerByte = 4 * GifLzw.TableSize;

    public static RgbImage Decode(ReadOnlySpan<byte> data, DecodeContext context)
    {
        var reader = new Reader(data, context);
        reader.Skip(6);
        int width = reader.Short(), height = reader.Short();
        int flags = reader.Byte();
        reader.Skip(2);
        var global = (flags & 0x80) != 0 ? reader.Take(3 << ((flags & 7) + 1)) : [];
        int transparent = 0;
        while (true)
        {
            byte kind = reader.Byte();
            if (kind == ';') throw context.Corrupt("It holds no frame");
            if (kind == '!')
            {
                byte label = reader.Byte();
                var first = reader.Block();
                if (label == 0xf9 && first.Length >= 4 && (first[0] & 1) != 0) transparent = first[3];
                while (!first.IsEmpty) first = reader.Block();
            }
            if (kind == ',') return Frame(ref reader, width, height, global, transparent, context);
        }
    }

    private static RgbImage Frame(
        ref Reader reader, int width, int height, ReadOnlySpan<byte> palette, int background, DecodeContext context)
    {
        int left = reader.Short(), top = reader.Short(), frameWidth = reader.Short(), frameHeight = reader.Short();
        int flags = reader.Byte();
        width = Math.Max(width, left + frameWidth);
        height = Math.Max(height, top + frameHeight);
        context.CheckSize(width, height);
        context.CheckSize(frameWidth, frameHeight);
        if ((flags & 0x80) != 0) palette = reader.Take(3 << ((flags & 7) + 1));
        int bits = reader.Byte();
        if (bits > GifLzw.MaxBits) throw context.Corrupt($"Its codes begin with {bits} bits");
        var packed = reader.Rest;
        if ((long)frameWidth * frameHeight > MostPixelsPerByte * packed.Length)
            throw context.Truncated($"Its frame claims {frameWidth}x{frameHeight} pixels, more than its {packed.Length} bytes can hold");
        byte[] indices = new byte[frameWidth * frameHeight];
        GifLzw.Decode(packed, bits, indices, context);
        var image = DecodeContext.NewImage(width, height);
        Span<byte> colours = stackalloc byte[768];
        Colours(palette, colours);
        if (frameWidth != width || frameHeight != height)
        {
            var colour = colours.Slice(3 * background, 3);
            for (int i = 0; i < image.Pixels.Length; i += 3) colour.CopyTo(image.Pixels.AsSpan(i));
        }
        bool interlaced = (flags & 0x40) != 0;
        int row = 0;
        foreach (int y in interlaced ? InterlacedRows(frameHeight) : Enumerable.Range(0, frameHeight))
        {
            var from = indices.AsSpan(frameWidth * row++, frameWidth);
            var to = image.Row(top + y)[(3 * left)..];
            for (int x = 0; x < from.Length; x++) colours.Slice(3 * from[x], 3).CopyTo(to[(3 * x)..]);
        }
        return image;
    }

    /// <summary>The 256 colours: the palette and black beyond it, or grey levels where there is none.</summary>
    private static void Colours(ReadOnlySpan<byte> palette, Span<byte> colours)
    {
        bool identity = true;
        for (int i = 0; i < palette.Length && identity; i++) identity = palette[i] == i / 3;
        if (identity)
        {
            for (int i = 0; i < colours.Length; i++) colours[i] = (byte)(i / 3);
            return;
        }
        colours.Clear();
        palette.CopyTo(colours);
    }

    private static IEnumerable<int> InterlacedRows(int height)
    {
        foreach (var (first, step) in new[] { (0, 8), (4, 8), (2, 4), (1, 2) })
            for (int y = first; y < height; y += step) yield return y;
    }

    /// <summary>Reads forward, and says so where the file ends.</summary>
    private ref struct Reader(ReadOnlySpan<byte> data, DecodeContext context)
    {
        public ReadOnlySpan<byte> Rest { get; private set; } = data;

        public byte Byte() => Take(1)[0];

        public int Short() => BinaryPrimitives.ReadUInt16LittleEndian(Take(2));

        public void Skip(int count) => Take(count);

        public ReadOnlySpan<byte> Block() => Take(Byte());

        public ReadOnlySpan<byte> Take(int count)
        {
            if (count > Rest.Length) throw context.Truncated("The file ends before its first frame");
            var taken = Rest[..count];
            Rest = Rest[count..];
            return taken;
        }
    }
}
