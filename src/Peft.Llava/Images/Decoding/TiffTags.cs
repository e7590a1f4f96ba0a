using System.Buffers.Binary;

namespace Peft.Llava;

/// <summary>Reads single values of a TIFF directory, the form that EXIF has as well. Damage reads as absence.</summary>
internal static class TiffTags
{
    public const int BitsPerSample = 258;
    public const int Photometric = 262;
    public const int Orientation = 274;

    private const int Short = 3;
    private const int Long = 4;

    /// <summary>The first value of a tag of the first directory, or null.</summary>
    public static int? Find(ReadOnlySpan<byte> tiff, int tag)
    {
        if (tiff.Length < 8) return null;
        bool little = tiff[0] == 'I';
        if (Number16(tiff, 2, little) != 42) return null;
        long directory = Number32(tiff, 4, little);
        if (directory + 2 > tiff.Length) return null;
        int count = Number16(tiff, (int)directory, little);
        for (int i = 0; i < count; i++)
        {
            long at = directory + 2 + 12L * i;
            if (at + 12 > tiff.Length) return null;
            if (Number16(tiff, (int)at, little) == tag) return Value(tiff, (int)at, little);
        }
        return null;
    }

    private static int? Value(ReadOnlySpan<byte> tiff, int entry, bool little)
    {
        int type = Number16(tiff, entry + 2, little);
        if (type is not (Short or Long)) return null;
        long count = Number32(tiff, entry + 4, little);
        // Values that do not fit into the entry's four bytes lie elsewhere.
        long place = count * (type == Short ? 2 : 4) <= 4 ? entry + 8 : Number32(tiff, entry + 8, little);
        if (count == 0 || place + (type == Short ? 2 : 4) > tiff.Length) return null;
        return type == Short ? Number16(tiff, (int)place, little) : (int)Math.Min(int.MaxValue, Number32(tiff, (int)place, little));
    }

    private static int Number16(ReadOnlySpan<byte> data, int at, bool little)
        => little ? BinaryPrimitives.ReadUInt16LittleEndian(data[at..]) : BinaryPrimitives.ReadUInt16BigEndian(data[at..]);

    private static long Number32(ReadOnlySpan<byte> data, int at, bool little)
        => little ? BinaryPrimitives.ReadUInt32LittleEndian(data[at..]) : BinaryPrimitives.ReadUInt32BigEndian(data[at..]);
}
