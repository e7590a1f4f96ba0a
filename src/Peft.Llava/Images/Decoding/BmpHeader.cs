using System.Buffers.Binary;

namespace Peft.Llava;

/// <summary>What a Windows bitmap's headers say.</summary>
internal sealed record BmpHeader(
    int Width, int Height, bool TopDown, int Bits, BmpHeader.Packing Compression, int PixelStart, int PaletteStart, int PaletteStep, int Colours,
    uint Red, uint Green, uint Blue)
{
    /// <summary>How the pixels are packed; the numbers are the file's.</summary>
    public enum Packing
    {
        /// <summary>Plain rows.</summary>
        Raw = 0,

        /// <summary>Runs of 8-bit indices.</summary>
        Rle8 = 1,

        /// <summary>Runs of 4-bit indices.</summary>
        Rle4 = 2,

        /// <summary>Plain rows whose channels lie where masks say.</summary>
        BitFields = 3,
    }

    /// <summary>Bytes from row to row: whole groups of four.</summary>
    public long Stride => ((long)Width * Bits + 31) >> 5 << 2;

    /// <summary>Bytes of a row that hold pixels.</summary>
    public long RowBytes => ((long)Width * Bits + 7) >> 3;

    public static BmpHeader Read(ReadOnlySpan<byte> data, DecodeContext context)
    {
        if (data.Length < 18) throw Ends(context);
        uint pixelStart = U32(data, 10), size = U32(data, 14);
        if (size is not (12 or 40 or 52 or 56 or 64 or 108 or 124)) throw context.Unsupported($"It has an unknown header of {size} bytes");
        if (data.Length < 14 + size) throw Ends(context);
        bool core = size == 12;
        bool topDown = !core && data[25] == 0xff;
        long width = core ? U16(data, 18) : U32(data, 18);
        long height = core ? U16(data, 20) : topDown ? (1L << 32) - U32(data, 22) : U32(data, 22);
        context.CheckSize(width, height);
        int bits = U16(data, core ? 24 : 28);
        if (bits is not (1 or 4 or 8 or 16 or 24 or 32)) throw context.Unsupported($"It has {bits} bits per pixel");
        uint packing = core ? 0 : U32(data, 30);
        uint colours = core ? 0 : U32(data, 46);
        if (colours == 0) colours = bits <= 8 ? 1u << bits : 0;
        int step = core ? 3 : 4;
        int end = 14 + (int)size;
        var (red, green, blue) = bits switch { 16 => (0x7c00u, 0x3e0u, 0x1fu), _ => (0xff0000u, 0xff00u, 0xffu) };
        if (packing == (uint)Packing.BitFields)
        {
            if (data.Length < 66) throw Ends(context);
            (red, green, blue) = (U32(data, 54), U32(data, 58), U32(data, 62));
            if (size == 40) end += 12;
            uint alpha = size >= 56 ? U32(data, 66) : 0;
            CheckMasks(bits, ref red, ref green, ref blue, alpha, context);
        }
        else if (packing > 2 || (packing != 0 && bits is not (4 or 8)))
        {
            throw context.Unsupported($"It has compression {packing} with {bits} bits per pixel");
        }
        if (bits <= 8 && colours > 65536) throw context.Corrupt($"Its palette claims {colours} colours");
        long start = pixelStart == 0 ? end + (bits <= 8 ? step * (long)colours : 0) : pixelStart;
        if (bits <= 8 && pixelStart == end) start += step * (long)colours;             // a file that forgets its palette
        if (start > data.Length) throw Ends(context);
        return new BmpHeader((int)width, (int)height, topDown, bits, (Packing)packing, (int)start, end, step, (int)Math.Min(colours, 256), red, green, blue);
    }

    private static void CheckMasks(int bits, ref uint red, ref uint green, ref uint blue, uint alpha, DecodeContext context)
    {
        if (bits == 32 && (red, green, blue, alpha) == (0, 0, 0, 0)) (red, green, blue) = (0xff0000, 0xff00, 0xff);
        bool known = (bits, red, green, blue) switch
        {
            (32, 0xff0000, 0xff00, 0xff) => alpha is 0 or 0xff000000,
            (32, 0xff000000, 0xff0000, 0xff00) => alpha is 0 or 0xff,
            (32, 0xff000000, 0xff00, 0xff) => alpha is 0 or 0xff0000,
            (32, 0xff, 0xff00, 0xff0000) => alpha is 0xff000000,
            (24, 0xff0000, 0xff00, 0xff) or (16, 0xf800, 0x7e0, 0x1f) or (16, 0x7c00, 0x3e0, 0x1f) => true,
            _ => false,
        };
        if (!known) throw context.Unsupported($"Its channels lie at the masks {red:X}, {green:X}, {blue:X}, {alpha:X} of {bits} bits");
    }

    private static ImageDecodeException Ends(DecodeContext context) => context.Truncated("The file ends within its header");

    private static uint U32(ReadOnlySpan<byte> data, int at) => BinaryPrimitives.ReadUInt32LittleEndian(data[at..]);

    private static int U16(ReadOnlySpan<byte> data, int at) => BinaryPrimitives.ReadUInt16LittleEndian(data[at..]);
}
