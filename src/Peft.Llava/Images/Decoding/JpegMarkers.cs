using System.Buffers.Binary;

namespace Peft.Llava;

/// <summary>
/// Walks a JPEG's markers before it is decoded: its size, and that it goes on to its end marker. A decoder would fill what is missing with
/// grey.
/// </summary>
internal static class JpegMarkers
{
    /// <summary>A block of 64 pixels takes a bit at least, so a byte holds no more pixels than this.</summary>
    private const long MostPixelsPerByte = 512;

    public static void Check(ReadOnlySpan<byte> data, DecodeContext context)
    {
        int at = 2;
        bool scanSeen = false;
        while (true)
        {
            int skipped = data[at..].IndexOf((byte)0xff);
            if (skipped < 0) throw Ends(context, scanSeen);
            at += skipped;
            while (at < data.Length && data[at] == 0xff) at++;
            if (at >= data.Length) throw Ends(context, scanSeen);
            byte marker = data[at++];
            if (marker is 0 or 1 or (>= 0xd0 and <= 0xd8)) continue;        // stuffed byte, no segment, restart, start
            if (marker == 0xd9)
            {
                if (!scanSeen) throw context.Corrupt("It ends without a scan");
                return;
            }
            if (at + 2 > data.Length) throw Ends(context, scanSeen);
            int length = BinaryPrimitives.ReadUInt16BigEndian(data[at..]);
            if (length < 2) throw context.Corrupt($"The segment of marker FF{marker:X2} claims {length} bytes");
            if (at + length > data.Length) throw Ends(context, scanSeen);
            if (marker is >= 0xc0 and <= 0xcf and not (0xc4 or 0xc8 or 0xcc)) Frame(data.Slice(at + 2, length - 2), data.Length, context);
            scanSeen |= marker == 0xda;
            at += length;
        }
    }

    private static void Frame(ReadOnlySpan<byte> segment, int fileLength, DecodeContext context)
    {
        if (segment.Length < 6) throw context.Corrupt("Its frame header is too short");
        if (segment[0] != 8) throw context.Unsupported($"It has {segment[0]} bits per sample");
        int height = BinaryPrimitives.ReadUInt16BigEndian(segment[1..]), width = BinaryPrimitives.ReadUInt16BigEndian(segment[3..]);
        if (segment[5] is not (1 or 3 or 4)) throw context.Unsupported($"It has {segment[5]} components");
        context.CheckSize(width, height);
        if ((long)width * height > MostPixelsPerByte * fileLength)
            throw context.Truncated($"Its header claims {width}x{height} pixels, more than its {fileLength} bytes can hold");
    }

    private static ImageDecodeException Ends(DecodeContext context, bool scanSeen)
        => context.Truncated(scanSeen ? "The file ends without its end marker" : "The file ends within its header");
}
