using System.Buffers;
using System.Buffers.Binary;
using System.IO.Compression;

namespace Peft.Llava;

/// <summary>
/// PNG with Pillow's semantics, which Skia's differ from: 16-bit grey becomes min(value, 255), a chunk before the picture data must have
/// the right checksum, the data itself need not.
/// </summary>
internal static class PngDecoder
{
    private const int SignatureLength = 8;

    /// <summary>Deflate cannot expand by more than this.</summary>
    private const long MostExpansion = 1032;

    /// <summary>Adam7: first column, first row, column step, row step.</summary>
    private static readonly (int X, int Y, int Dx, int Dy)[] Passes =
        [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)];

    public static RgbImage Decode(ReadOnlySpan<byte> data, DecodeContext context)
    {
        PngHeader? header = null;
        ReadOnlySpan<byte> palette = [];
        int at = SignatureLength;
        while (true)
        {
            var (name, length) = ChunkAt(data, at, context) ?? throw context.Truncated("The file ends before its picture data");
            if (name is "IDAT") break;
            if (name is "IEND" or "fdAT") throw context.Corrupt($"Its {name} chunk comes before any picture data");
            var chunk = CheckedChunk(data, at, name, length, context);
            if (name is "IHDR") header = PngHeader.Read(chunk, context);
            else if (name is "PLTE") palette = chunk;
            else CheckLength(name, chunk.Length, context);
            at += 12 + chunk.Length;
        }
        if (header is null) throw context.Corrupt("It has no IHDR chunk");
        if (header.ColourType == 3 && palette.IsEmpty) throw context.Corrupt("It has colour indices but no palette");
        if (palette.Length > 768) throw context.Corrupt($"Its palette has {palette.Length} bytes, more than 256 colours");
        byte[] packed = PackedData(data, ref at);
        var image = Unpack(packed, header, palette, context);
        CheckRest(data, at, context);
        return image;
    }

    /// <summary>Name and length of the chunk at a place, or null if the file ends there.</summary>
    private static (string Name, uint Length)? ChunkAt(ReadOnlySpan<byte> data, int at, DecodeContext? context)
    {
        if (at + 8 > data.Length) return null;
        var name = data.Slice(at + 4, 4);
        foreach (byte letter in name)
        {
            if (!char.IsAsciiLetterOrDigit((char)letter) && letter != '_')
                return context is null ? null : throw context.Corrupt($"At byte {at} there is no chunk but {Convert.ToHexString(name)}");
        }
        return (System.Text.Encoding.ASCII.GetString(name), BinaryPrimitives.ReadUInt32BigEndian(data[at..]));
    }

    /// <summary>The content of a chunk whose checksum is right.</summary>
    private static ReadOnlySpan<byte> CheckedChunk(ReadOnlySpan<byte> data, int at, string name, uint length, DecodeContext context)
    {
        if (at + 12L + length > data.Length) throw context.Truncated($"The file ends within its {name} chunk");
        uint stored = BinaryPrimitives.ReadUInt32BigEndian(data[(at + 8 + (int)length)..]);
        if (Crc32.Compute(data.Slice(at + 4, 4 + (int)length)) != stored) throw context.Corrupt($"The checksum of its {name} chunk is wrong");
        return data.Slice(at + 8, (int)length);
    }

    private static void CheckLength(string name, int length, DecodeContext context)
    {
        int least = name switch { "gAMA" => 4, "cHRM" => 32, "sRGB" => 1, "pHYs" => 9, "acTL" => 8, "fcTL" => 26, _ => 0 };
        if (length < least) throw context.Corrupt($"Its {name} chunk has {length} bytes instead of {least}");
    }

    /// <summary>The deflated data of all consecutive IDAT chunks, whatever their checksums; the last may be cut short.</summary>
    private static byte[] PackedData(ReadOnlySpan<byte> data, ref int at)
    {
        var packed = new ArrayBufferWriter<byte>(Math.Max(16, data.Length - at));
        while (ChunkAt(data, at, null) is ("IDAT", var length))
        {
            int begin = at + 8;
            int there = (int)Math.Min(length, data.Length - begin);
            packed.Write(data.Slice(begin, there));
            at = (int)Math.Min(begin + (long)there + 4, data.Length);
        }
        return packed.WrittenSpan.ToArray();
    }

    /// <summary>A chunk behind the picture data may have any checksum, but must be there.</summary>
    private static void CheckRest(ReadOnlySpan<byte> data, int at, DecodeContext context)
    {
        while (ChunkAt(data, at, null) is var (name, length) && name is not ("IEND" or "fcTL"))
        {
            if (at + 8L + length > data.Length) throw context.Truncated($"The file ends within its {name} chunk");
            at = (int)Math.Min(at + 12L + length, data.Length);
        }
    }

    private static RgbImage Unpack(byte[] packed, PngHeader header, ReadOnlySpan<byte> palette, DecodeContext context)
    {
        long needed = (long)header.RowBytes(header.Width) * header.Height;
        if (needed > MostExpansion * packed.Length)
            throw context.Truncated($"Its header claims {header.Width}x{header.Height} pixels, more than its {packed.Length} bytes of data can hold");
        var colours = new PngColours(header, palette);
        var image = DecodeContext.NewImage(header.Width, header.Height);
        using var inflater = new ZLibStream(new MemoryStream(packed), CompressionMode.Decompress);
        int most = header.RowBytes(header.Width) + 1;
        byte[] rented = ArrayPool<byte>.Shared.Rent(2 * most + (header.Interlaced ? 3 * header.Width : 0));
        try
        {
            var rows = new Rows(rented.AsSpan(0, most), rented.AsSpan(most, most));
            if (!header.Interlaced)
            {
                rows.Start();
                for (int y = 0; y < header.Height; y++) colours.ToRgb(Next(inflater, ref rows, header.RowBytes(header.Width), header, context), image.Row(y));
                return image;
            }
            var spread = rented.AsSpan(2 * most, 3 * header.Width);
            foreach (var (x0, y0, dx, dy) in Passes)
            {
                int width = (header.Width - x0 + dx - 1) / dx;
                if (width <= 0) continue;
                rows.Start();
                for (int y = y0; y < header.Height; y += dy)
                {
                    colours.ToRgb(Next(inflater, ref rows, header.RowBytes(width), header, context), spread[..(3 * width)]);
                    var row = image.Row(y);
                    for (int i = 0; i < width; i++) spread.Slice(3 * i, 3).CopyTo(row[(3 * (x0 + dx * i))..]);
                }
            }
            return image;
        }
        catch (InvalidDataException error)
        {
            throw context.Corrupt("Its compressed data are damaged", error);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(rented);
        }
    }

    /// <summary>The next row, unfiltered.</summary>
    private static ReadOnlySpan<byte> Next(ZLibStream inflater, ref Rows rows, int length, PngHeader header, DecodeContext context)
    {
        rows.Swap();
        var line = rows.Current[..(length + 1)];
        if (inflater.ReadAtLeast(line, line.Length, throwOnEndOfStream: false) < line.Length)
            throw context.Truncated("Its picture data end before the picture does");
        var row = line[1..];
        if (!PngFilter.Undo(line[0], row, rows.Above.Slice(1, length), Math.Max(1, header.Bits / 8)))
            throw context.Corrupt($"There is no row filter {line[0]}");
        return row;
    }

    /// <summary>The row being read and the one above it.</summary>
    private ref struct Rows(Span<byte> first, Span<byte> second)
    {
        public Span<byte> Current = first;
        public Span<byte> Above = second;

        /// <summary>Begins a picture or a pass: the row above the first is zero.</summary>
        public readonly void Start() => Current.Clear();

        public void Swap()
        {
            var above = Above;
            Above = Current;
            Current = above;
        }
    }
}
