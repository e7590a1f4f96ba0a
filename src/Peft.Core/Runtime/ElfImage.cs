using System.Buffers.Binary;
using System.Text;

namespace Peft.Core;

/// <summary>The sections of a 64-bit little-endian ELF file, read on demand. Every offset is checked: a broken file is no ELF file.</summary>
internal sealed class ElfImage
{
    private const int HeaderBytes = 64;
    private const int SectionHeaderBytes = 64;
    private const int MostSections = 4096;
    private readonly Stream _stream;

    private ElfImage(Stream stream, IReadOnlyList<Section> sections)
    {
        _stream = stream;
        Sections = sections;
    }

    /// <summary>One section: kind, place in the file, and the section that holds its names.</summary>
    public readonly record struct Section(uint Kind, long Offset, int Length, int Link);

    /// <summary>All sections in file order.</summary>
    public IReadOnlyList<Section> Sections { get; }

    /// <returns>Null if the stream holds anything else than a whole ELF64 little-endian file.</returns>
    public static ElfImage? TryOpen(Stream stream)
    {
        var header = new byte[HeaderBytes];
        stream.Position = 0;
        if (stream.ReadAtLeast(header, HeaderBytes, throwOnEndOfStream: false) < HeaderBytes) return null;
        if (!header.AsSpan(0, 6).SequenceEqual((ReadOnlySpan<byte>)[0x7f, (byte)'E', (byte)'L', (byte)'F', 2, 1])) return null;
        ulong table = BinaryPrimitives.ReadUInt64LittleEndian(header.AsSpan(40));
        int entryBytes = BinaryPrimitives.ReadUInt16LittleEndian(header.AsSpan(58));
        int count = BinaryPrimitives.ReadUInt16LittleEndian(header.AsSpan(60));
        if (table == 0 || entryBytes != SectionHeaderBytes || count > MostSections) return null;
        if (table > (ulong)stream.Length || (ulong)stream.Length - table < (ulong)entryBytes * (ulong)count) return null;

        var entries = new byte[entryBytes * count];
        stream.Position = (long)table;
        stream.ReadExactly(entries);
        var sections = new Section[count];
        for (int i = 0; i < count; i++)
        {
            var entry = entries.AsSpan(i * entryBytes, entryBytes);
            uint kind = BinaryPrimitives.ReadUInt32LittleEndian(entry[4..]);
            ulong offset = BinaryPrimitives.ReadUInt64LittleEndian(entry[24..]);
            ulong length = BinaryPrimitives.ReadUInt64LittleEndian(entry[32..]);
            uint link = BinaryPrimitives.ReadUInt32LittleEndian(entry[40..]);
            bool inside = offset <= (ulong)stream.Length && length <= (ulong)stream.Length - offset && length <= int.MaxValue;
            sections[i] = inside ? new Section(kind, (long)offset, (int)length, link < count ? (int)link : -1) : new Section(0, 0, 0, -1);
        }
        return new ElfImage(stream, sections);
    }

    /// <summary>The first section of a kind that has a section of names.</summary>
    public bool TryFind(uint kind, out Section section, out Section names)
    {
        foreach (var candidate in Sections)
        {
            if (candidate.Kind != kind || candidate.Link < 0) continue;
            section = candidate;
            names = Sections[candidate.Link];
            return true;
        }
        section = names = default;
        return false;
    }

    /// <summary>The bytes of a section.</summary>
    public byte[] Read(Section section)
    {
        var bytes = new byte[section.Length];
        _stream.Position = section.Offset;
        _stream.ReadExactly(bytes);
        return bytes;
    }

    /// <summary>The zero-terminated name at an offset of a section of names; null if it lies outside.</summary>
    public static string? NameAt(ReadOnlySpan<byte> names, uint offset)
    {
        if (offset >= names.Length) return null;
        var rest = names[(int)offset..];
        int end = rest.IndexOf((byte)0);
        return end < 0 ? null : Encoding.UTF8.GetString(rest[..end]);
    }

    /// <summary>Reads a 16-bit number; 0 outside.</summary>
    public static int UInt16At(ReadOnlySpan<byte> bytes, long at)
        => at >= 0 && at + 2 <= bytes.Length ? BinaryPrimitives.ReadUInt16LittleEndian(bytes[(int)at..]) : 0;

    /// <summary>Reads a 32-bit number; 0 outside.</summary>
    public static uint UInt32At(ReadOnlySpan<byte> bytes, long at)
        => at >= 0 && at + 4 <= bytes.Length ? BinaryPrimitives.ReadUInt32LittleEndian(bytes[(int)at..]) : 0;
}
