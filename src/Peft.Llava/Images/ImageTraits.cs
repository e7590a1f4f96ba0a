using System.Buffers.Binary;

namespace Peft.Llava;

/// <summary>What a picture file's header says that decoding to 8-bit RGB loses.</summary>
/// <param name="BitsPerSample">8, 16 and so on.</param>
/// <param name="IsCmyk">Whether the colours are inks: JPEG with four components, TIFF with separated colours.</param>
/// <param name="Orientation">
/// EXIF's orientation of JPEG, PNG and WebP, which Pillow's <c>open</c> and this library do not apply: 1 for upright, 2 to 8 for turned or mirrored.
/// (A TIFF's own orientation is applied by both, so it reads as 1 here.)
/// </param>
public sealed record ImageTraits(int BitsPerSample, bool IsCmyk, int Orientation)
{
    private const int PngSignature = 8;
    private static readonly ImageTraits Plain = new(8, false, 1);

    /// <summary>Reads a header. What is damaged reads as plain: <see cref="ImageDecoder"/> is what refuses.</summary>
    /// <param name="data">The content of a picture file.</param>
    public static ImageTraits Read(ReadOnlySpan<byte> data)
    {
        if (data.StartsWith((ReadOnlySpan<byte>)[0xff, 0xd8])) return Jpeg(data);
        if (data.StartsWith((ReadOnlySpan<byte>)[0x89, (byte)'P', (byte)'N', (byte)'G'])) return Png(data);
        if (data.StartsWith("RIFF"u8) && data.Length >= 12 && data[8..12].SequenceEqual("WEBP"u8)) return WebP(data);
        if (data.StartsWith("II*\0"u8) || data.StartsWith("MM\0*"u8))
            return new ImageTraits(TiffTags.Find(data, TiffTags.BitsPerSample) ?? 8, TiffTags.Find(data, TiffTags.Photometric) == 5, 1);
        return Plain;
    }

    private static ImageTraits Jpeg(ReadOnlySpan<byte> data)
    {
        var traits = Plain;
        for (int at = 2; at + 4 <= data.Length && data[at] == 0xff;)
        {
            byte marker = data[at + 1];
            if (marker == 0xff)                                 // fill byte
            {
                at++;
                continue;
            }
            int length = BinaryPrimitives.ReadUInt16BigEndian(data[(at + 2)..]);
            if (marker is 0xda or 0xd9 || length < 2 || at + 2 + length > data.Length) break;
            var segment = data.Slice(at + 4, length - 2);
            if (marker == 0xe1) traits = traits with { Orientation = ExifOrientation(segment) ?? traits.Orientation };
            if (marker is >= 0xc0 and <= 0xcf and not (0xc4 or 0xc8 or 0xcc) && segment.Length >= 6)
                traits = traits with { BitsPerSample = segment[0], IsCmyk = segment[5] == 4 };
            at += 2 + length;
        }
        return traits;
    }

    private static ImageTraits Png(ReadOnlySpan<byte> data)
    {
        var traits = Plain;
        for (int at = PngSignature; at + 8 <= data.Length;)
        {
            long length = BinaryPrimitives.ReadUInt32BigEndian(data[at..]);
            var name = data.Slice(at + 4, 4);
            if (at + 12 + length > data.Length) break;
            var chunk = data.Slice(at + 8, (int)length);
            if (name.SequenceEqual("IHDR"u8) && length >= 13) traits = traits with { BitsPerSample = chunk[8] == 16 ? 16 : 8 };
            if (name.SequenceEqual("eXIf"u8)) traits = traits with { Orientation = Turned(TiffTags.Find(chunk, TiffTags.Orientation)) ?? 1 };
            at += 12 + (int)length;
        }
        return traits;
    }

    private static ImageTraits WebP(ReadOnlySpan<byte> data)
    {
        for (int at = 12; at + 8 <= data.Length;)
        {
            long length = BinaryPrimitives.ReadUInt32LittleEndian(data[(at + 4)..]);
            if (at + 8 + length > data.Length) break;
            var chunk = data.Slice(at + 8, (int)length);
            if (data.Slice(at, 4).SequenceEqual("EXIF"u8))
                return Plain with { Orientation = ExifOrientation(chunk) ?? Turned(TiffTags.Find(chunk, TiffTags.Orientation)) ?? 1 };
            at += 8 + (int)(length + length % 2);
        }
        return Plain;
    }

    private static int? ExifOrientation(ReadOnlySpan<byte> segment)
        => segment.StartsWith("Exif\0\0"u8) ? Turned(TiffTags.Find(segment[6..], TiffTags.Orientation)) : null;

    private static int? Turned(int? orientation) => orientation is >= 1 and <= 8 ? orientation : null;
}
