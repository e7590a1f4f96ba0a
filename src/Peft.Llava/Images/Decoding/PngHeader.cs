using System.Buffers.Binary;

namespace Peft.Llava;

/// <summary>What IHDR says.</summary>
internal sealed record PngHeader(int Width, int Height, int Depth, int ColourType, bool Interlaced)
{
    /// <summary>Samples per pixel.</summary>
    public int Channels => ColourType switch { 2 => 3, 4 => 2, 6 => 4, _ => 1 };

    /// <summary>Bits per pixel.</summary>
    public int Bits => Channels * Depth;

    /// <summary>Bytes of a row of so many pixels.</summary>
    public int RowBytes(int width) => checked((int)(((long)width * Bits + 7) / 8));

    public static PngHeader Read(ReadOnlySpan<byte> chunk, DecodeContext context)
    {
        if (chunk.Length < 13) throw context.Corrupt($"Its IHDR chunk has {chunk.Length} bytes instead of 13");
        uint width = BinaryPrimitives.ReadUInt32BigEndian(chunk), height = BinaryPrimitives.ReadUInt32BigEndian(chunk[4..]);
        context.CheckSize(width, height);
        int depth = chunk[8], colour = chunk[9];
        bool known = (colour, depth) is (0, 1 or 2 or 4 or 8 or 16) or (3, 1 or 2 or 4 or 8) or (2 or 4 or 6, 8 or 16);
        if (!known) throw context.Corrupt($"There is no colour type {colour} with {depth} bits");
        if (chunk[11] != 0) throw context.Corrupt($"There is no filter method {chunk[11]}");
        return new PngHeader((int)width, (int)height, depth, colour, chunk[12] != 0);
    }
}
