using System.Buffers.Binary;
using System.IO.Compression;
using System.Text;

namespace Peft.Core;

/// <summary>A record of a zip file: where its bytes stand.</summary>
internal sealed record ZipRecord(string Name, bool Deflated, uint Crc, long StoredLength, long Length, long DataOffset);

/// <summary>
/// The records of a zip file. The framework's own reader does not tell where a record's bytes stand, which mapping needs.
/// Source: PKWARE's APPNOTE 6.3.10, sections 4.3 and 4.5.3.
/// </summary>
internal sealed class ZipDirectory
{
    private const int EndLength = 22;
    private const uint EndSignature = 0x06054b50, End64Signature = 0x06064b50, Locator64Signature = 0x07064b50;
    private const uint CentralSignature = 0x02014b50, LocalSignature = 0x04034b50;
    private readonly TensorFile _file;
    private readonly Dictionary<string, ZipRecord> _records = [];

    public ZipDirectory(TensorFile file)
    {
        _file = file;
        var (offset, length, count) = FindCentralDirectory();
        byte[] bytes = file.Read(offset, (int)length);
        var rest = bytes.AsSpan();
        for (long i = 0; i < count; i++)
        {
            var record = ReadCentral(ref rest);
            if (!_records.TryAdd(record.Name, record)) throw Damaged($"its zip directory names '{record.Name}' twice");
        }
    }

    public IReadOnlyDictionary<string, ZipRecord> Records => _records;

    /// <summary>All bytes of a small record, checked.</summary>
    public byte[] ReadAll(ZipRecord record, int limit)
    {
        if (record.Length > limit) throw Damaged($"record '{record.Name}' has {record.Length} bytes, more than the {limit} it can sensibly have");
        byte[] stored = _file.Read(record.DataOffset, checked((int)Math.Min(record.StoredLength, int.MaxValue)));
        byte[] bytes = record.Deflated ? Inflate(record, stored) : stored;
        if (Crc32.Append(0, bytes) != record.Crc) throw Corrupt(record);
        return bytes;
    }

    public PickleFormatException Corrupt(ZipRecord record)
        => Damaged($"the bytes of record '{record.Name}' do not match their checksum");

    private byte[] Inflate(ZipRecord record, byte[] stored)
    {
        byte[] bytes = new byte[record.Length];
        try
        {
            using var stream = new DeflateStream(new MemoryStream(stored), CompressionMode.Decompress);
            stream.ReadExactly(bytes);
            return bytes;
        }
        catch (Exception e) when (e is InvalidDataException or EndOfStreamException)
        {
            throw new PickleFormatException(_file.Path, $"record '{record.Name}' cannot be decompressed", innerException: e);
        }
    }

    private (long Offset, long Length, long Count) FindCentralDirectory()
    {
        int tailLength = (int)Math.Min(_file.Length, EndLength + ushort.MaxValue);
        long tailStart = _file.Length - tailLength;
        var tail = _file.Read(tailStart, tailLength).AsSpan();
        for (int at = tail.Length - EndLength; at >= 0; at--)
        {
            if (U32(tail[at..]) != EndSignature) continue;
            var end = tail[at..];
            var found = End64(tailStart + at) ?? (Offset: U32(end[16..]), Length: U32(end[12..]), Count: U16(end[10..]));
            if (found.Offset < 0 || found.Length < 0 || found.Length > int.MaxValue || found.Offset > _file.Length - found.Length
                || found.Count < 0 || found.Count > found.Length / 46)
                throw Damaged("its zip directory lies outside the file");
            return found;
        }
        throw Damaged("it has no zip directory: it was cut off or is no zip file");
    }

    private (long Offset, long Length, long Count)? End64(long endOffset)
    {
        var locator = _file.Read(Math.Max(0, endOffset - 20), 20).AsSpan();
        if (endOffset < 20 || U32(locator) != Locator64Signature) return null;
        long offset = I64(locator[8..]);
        if (offset < 0 || offset > _file.Length - 56) throw Damaged("its zip directory lies outside the file");
        var end = _file.Read(offset, 56).AsSpan();
        if (U32(end) != End64Signature) throw Damaged("its zip directory lies outside the file");
        return (I64(end[48..]), I64(end[40..]), I64(end[32..]));
    }

    private ZipRecord ReadCentral(ref Span<byte> rest)
    {
        if (rest.Length < 46 || U32(rest) != CentralSignature) throw Damaged("its zip directory is damaged");
        int nameLength = U16(rest[28..]), extraLength = U16(rest[30..]), commentLength = U16(rest[32..]);
        if (rest.Length < 46 + nameLength + extraLength + commentLength) throw Damaged("its zip directory is damaged");
        string name = Encoding.UTF8.GetString(rest.Slice(46, nameLength));
        int flags = U16(rest[8..]), method = U16(rest[10..]);
        if ((flags & 1) != 0) throw Damaged($"record '{name}' is encrypted");
        if (method is not (0 or 8)) throw Damaged($"record '{name}' is compressed by method {method}");
        uint crc = U32(rest[16..]);
        long stored = U32(rest[20..]), length = U32(rest[24..]), header = U32(rest[42..]);
        ReadExtra64(rest.Slice(46 + nameLength, extraLength), ref length, ref stored, ref header);
        rest = rest[(46 + nameLength + extraLength + commentLength)..];
        return new ZipRecord(name, method == 8, crc, stored, length, DataOffset(name, header, stored, length, method == 8));
    }

    private static void ReadExtra64(Span<byte> extra, ref long length, ref long stored, ref long header)
    {
        while (extra.Length >= 4)
        {
            int size = U16(extra[2..]);
            if (extra.Length < 4 + size) return;
            var field = extra.Slice(4, size);
            if (U16(extra) == 1)
            {
                Take(ref field, ref length);
                Take(ref field, ref stored);
                Take(ref field, ref header);
            }
            extra = extra[(4 + size)..];
        }

        static void Take(ref Span<byte> field, ref long value)
        {
            if (value != uint.MaxValue || field.Length < 8) return;
            value = I64(field);
            field = field[8..];
        }
    }

    private long DataOffset(string name, long header, long stored, long length, bool deflated)
    {
        var local = header < 0 ? [] : _file.Read(header, 30).AsSpan();
        if (local.Length < 30 || U32(local) != LocalSignature) throw Damaged($"record '{name}' does not stand where its zip directory says");
        long offset = header + 30 + U16(local[26..]) + U16(local[28..]);
        if (stored < 0 || length < 0 || offset > _file.Length - stored || (!deflated && stored != length))
            throw Damaged($"record '{name}' reaches beyond the file");
        // Deflate gives at most 1032 bytes for one: a longer record is a trap that would only fill the memory.
        if (deflated && length > stored * 1032) throw Damaged($"record '{name}' cannot have {length} bytes, compressed to {stored}");
        return offset;
    }

    private PickleFormatException Damaged(string fault) => new(_file.Path, fault);

    private static int U16(ReadOnlySpan<byte> bytes) => BinaryPrimitives.ReadUInt16LittleEndian(bytes);

    private static uint U32(ReadOnlySpan<byte> bytes) => BinaryPrimitives.ReadUInt32LittleEndian(bytes);

    private static long I64(ReadOnlySpan<byte> bytes) => BinaryPrimitives.ReadInt64LittleEndian(bytes);
}
