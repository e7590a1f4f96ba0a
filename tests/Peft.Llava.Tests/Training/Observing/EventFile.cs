using System.Buffers.Binary;
using System.Text;

namespace Peft.Llava.Tests.Training.Observing;

/// <summary>A reader of TensorBoard's event files that shares no code with the writer: bitwise CRC, and any protobuf field by its number.</summary>
internal static class EventFile
{
    /// <summary>The messages of the file; throws on a wrong length or checksum.</summary>
    public static List<Message> Read(string path)
    {
        byte[] file = File.ReadAllBytes(path);
        var messages = new List<Message>();
        for (int at = 0; at < file.Length;)
        {
            int length = checked((int)BinaryPrimitives.ReadUInt64LittleEndian(file.AsSpan(at)));
            Check(file.AsSpan(at, 8), BinaryPrimitives.ReadUInt32LittleEndian(file.AsSpan(at + 8)));
            Check(file.AsSpan(at + 12, length), BinaryPrimitives.ReadUInt32LittleEndian(file.AsSpan(at + 12 + length)));
            messages.Add(Message.Parse(file.AsSpan(at + 12, length)));
            at += length + 16;
        }
        return messages;
    }

    private static void Check(ReadOnlySpan<byte> data, uint masked)
    {
        uint crc = 0xffffffff;
        foreach (byte b in data)
        {
            crc ^= b;
            for (int bit = 0; bit < 8; bit++) crc = (crc & 1) != 0 ? crc >> 1 ^ 0x82f63b78 : crc >> 1;
        }
        crc = ~crc;
        uint expected = unchecked((crc >> 15 | crc << 17) + 0xa282ead8);
        if (masked != expected) throw new InvalidDataException($"The checksum is {masked:x8}, not {expected:x8}.");
    }

    /// <summary>Fields by number: ulong (varint, fixed64), uint (fixed32) or byte[].</summary>
    public sealed class Message
    {
        private readonly List<(int Field, object Value)> _fields = [];

        public double Double(int field) => BitConverter.UInt64BitsToDouble((ulong)One(field));

        public float Single(int field) => BitConverter.UInt32BitsToSingle((uint)One(field));

        public long Integer(int field) => (long)(ulong)One(field);

        public string Text(int field) => Encoding.UTF8.GetString((byte[])One(field));

        public IEnumerable<Message> Messages(int field) => _fields.Where(f => f.Field == field).Select(f => Parse((byte[])f.Value));

        public IEnumerable<int> Numbers => _fields.Select(f => f.Field);

        public static Message Parse(ReadOnlySpan<byte> data)
        {
            var message = new Message();
            int at = 0;
            while (at < data.Length)
            {
                ulong key = Varint(data, ref at);
                object value;
                switch (key & 7)
                {
                    case 0:
                        value = Varint(data, ref at);
                        break;
                    case 1:
                        value = BinaryPrimitives.ReadUInt64LittleEndian(data[at..]);
                        at += 8;
                        break;
                    case 5:
                        value = BinaryPrimitives.ReadUInt32LittleEndian(data[at..]);
                        at += 4;
                        break;
                    default:
                        int length = (int)Varint(data, ref at);
                        value = data.Slice(at, length).ToArray();
                        at += length;
                        break;
                }
                message._fields.Add(((int)(key >> 3), value));
            }
            return message;
        }

        private object One(int field) => _fields.Single(f => f.Field == field).Value;

        private static ulong Varint(ReadOnlySpan<byte> data, ref int at)
        {
            ulong value = 0;
            for (int shift = 0; ; shift += 7)
            {
                byte b = data[at++];
                value |= (ulong)(b & 0x7f) << shift;
                if (b < 0x80) return value;
            }
        }
    }
}
