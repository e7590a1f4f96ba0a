using System.Buffers;
using System.Buffers.Binary;
using System.Text;

namespace Peft.Core;

/// <summary>
/// Writes the zip form of <c>torch.save</c>: uncompressed records whose bytes begin at multiples of 64, sizes after the bytes, and always the
/// 64-bit directory. Source: <c>caffe2/serialize/inline_container.cc</c> of PyTorch and the miniz it carries; PKWARE's APPNOTE 4.3 and 4.5.3.
/// </summary>
internal sealed class TorchZipWriter(Stream stream, string archive)
{
    private const int Alignment = 64;
    private readonly ArrayBufferWriter<byte> _directory = new();
    private long _at;
    private long _count;
    private ulong _names;
    private ulong _checksums;

    /// <summary>Adds a record held in memory.</summary>
    public void Add(string name, ReadOnlySpan<byte> bytes)
    {
        Begin(name, bytes.Length);
        stream.Write(bytes);
        End(Crc32.Append(0, bytes), bytes.Length);
    }

    /// <summary>Adds a record whose bytes come in pieces.</summary>
    public void Add(string name, long length, Action<TensorBytes.ReadOnlySpanAction> pieces)
    {
        Begin(name, length);
        uint crc = 0;
        pieces(bytes =>
        {
            stream.Write(bytes);
            crc = Crc32.Append(crc, bytes);
        });
        End(crc, length);
    }

    /// <summary>Adds the closing records and the directory.</summary>
    public void Finish()
    {
        Add("version", "3\n"u8);
        // PyTorch's own is a hash of this kind; nothing but its form is promised.
        Add(".data/serialization_id", Encoding.ASCII.GetBytes($"{_names:D20}{_checksums:D20}"));
        long start = _at;
        stream.Write(_directory.WrittenSpan);
        WriteEnd(start, _directory.WrittenCount);
    }

    private string _name = "";
    private long _header;
    private bool _wide;

    private void Begin(string name, long length)
    {
        _name = $"{archive}/{name}";
        _header = _at;
        byte[] nameBytes = Encoding.UTF8.GetBytes(_name);
        byte[] extra64 = Extra64(length, _header);
        _wide = extra64.Length > 0;
        long start = _at + 30 + nameBytes.Length + extra64.Length + 4;
        int padding = (int)((Alignment - start % Alignment) % Alignment);
        var header = new Bytes();
        header.U32(0x04034b50).U16(0).U16(Flags(length)).Zeros(18).U16(nameBytes.Length).U16(extra64.Length + 4 + padding);
        header.Raw(nameBytes).Raw(extra64).Raw("FB"u8).U16(padding);
        for (int i = 0; i < padding; i++) header.Raw("Z"u8);
        Write(header);
    }

    private void End(uint crc, long length)
    {
        _at += length;
        if (length > 0)
        {
            var sizes = new Bytes().U32(0x08074b50).U32(crc);
            Write(_wide ? sizes.I64(length).I64(length) : sizes.U32((uint)length).U32((uint)length));
        }
        byte[] nameBytes = Encoding.UTF8.GetBytes(_name);
        byte[] extra64 = Extra64(length, _header);
        uint size32 = (uint)Math.Min(length, uint.MaxValue);
        _directory.Write(new Bytes().U32(0x02014b50).U16(0).U16(0).U16(Flags(length)).U16(0).U32(0).U32(crc).U32(size32).U32(size32)
            .U16(nameBytes.Length).U16(extra64.Length).Zeros(10).U32((uint)Math.Min(_header, uint.MaxValue)).Raw(nameBytes).Raw(extra64).ToArray());
        _count++;
        _names = Combine(_names, Crc32.Append(0, nameBytes));
        _checksums = Combine(_checksums, crc);
    }

    private void WriteEnd(long start, long length)
    {
        long end64 = start + length;
        Write(new Bytes().U32(0x06064b50).I64(44).U16(0x031e).U16(45).U32(0).U32(0).I64(_count).I64(_count).I64(length).I64(start)
            .U32(0x07064b50).U32(0).I64(end64).U32(1)
            .U32(0x06054b50).U16(0).U16(0).U16((int)Math.Min(_count, ushort.MaxValue)).U16((int)Math.Min(_count, ushort.MaxValue))
            .U32((uint)Math.Min(length, uint.MaxValue)).U32((uint)Math.Min(start, uint.MaxValue)).U16(0));
    }

    private void Write(Bytes bytes)
    {
        byte[] array = bytes.ToArray();
        stream.Write(array);
        _at += array.Length;
    }

    // Names are UTF-8; sizes follow the bytes, where there are any.
    private static int Flags(long length) => length > 0 ? 0x0808 : 0x0800;

    private static byte[] Extra64(long length, long header)
    {
        var field = new Bytes();
        if (length >= uint.MaxValue) field.I64(length).I64(length);
        if (header >= uint.MaxValue) field.I64(header);
        byte[] values = field.ToArray();
        return values.Length == 0 ? values : new Bytes().U16(1).U16(values.Length).Raw(values).ToArray();
    }

    private static ulong Combine(ulong seed, ulong value) => seed ^ (value + 0x9e3779b9 + (seed << 6) + (seed >> 2));

    /// <summary>Little-endian fields, one after another.</summary>
    private sealed class Bytes
    {
        private readonly ArrayBufferWriter<byte> _bytes = new();

        public Bytes U16(int value) => Number(2, value);

        public Bytes U32(uint value) => Number(4, value);

        public Bytes I64(long value) => Number(8, value);

        public Bytes Zeros(int count)
        {
            _bytes.Write(new byte[count]);
            return this;
        }

        public Bytes Raw(ReadOnlySpan<byte> bytes)
        {
            _bytes.Write(bytes);
            return this;
        }

        public byte[] ToArray() => _bytes.WrittenSpan.ToArray();

        private Bytes Number(int size, long value)
        {
            Span<byte> bytes = stackalloc byte[8];
            BinaryPrimitives.WriteInt64LittleEndian(bytes, value);
            return Raw(bytes[..size]);
        }
    }
}
