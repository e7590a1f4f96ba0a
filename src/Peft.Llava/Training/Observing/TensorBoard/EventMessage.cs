using System.Buffers;
using System.Buffers.Binary;
using System.Text;

namespace Peft.Llava;

/// <summary>
/// The few messages of TensorBoard's <c>event.proto</c> and <c>summary.proto</c> that scalars need, in protobuf's wire format.
/// </summary>
internal static class EventMessage
{
    private const int WallTime = 1, Step = 2, FileVersion = 3, Summary = 5;      // Event
    private const int Value = 1;                                                 // Summary
    private const int Tag = 1, SimpleValue = 2;                                  // Summary.Value
    private const int Varint = 0, Fixed64 = 1, Bytes = 2, Fixed32 = 5;

    /// <summary>The first record of a file.</summary>
    public static byte[] Version(double wallTime)
    {
        var message = new ArrayBufferWriter<byte>();
        WriteDouble(message, WallTime, wallTime);
        WriteBytes(message, FileVersion, "brain.Event:2"u8);
        return message.WrittenSpan.ToArray();
    }

    /// <summary>Scalars of one step.</summary>
    public static byte[] Scalars(double wallTime, long step, IReadOnlyList<(string Tag, double Value)> values)
    {
        var summary = new ArrayBufferWriter<byte>();
        var value = new ArrayBufferWriter<byte>();
        foreach (var (tag, number) in values)
        {
            value.ResetWrittenCount();
            WriteBytes(value, Tag, Encoding.UTF8.GetBytes(tag));
            WriteKey(value, SimpleValue, Fixed32);
            BinaryPrimitives.WriteSingleLittleEndian(value.GetSpan(4), (float)number);
            value.Advance(4);
            WriteBytes(summary, Value, value.WrittenSpan);
        }
        var message = new ArrayBufferWriter<byte>();
        WriteDouble(message, WallTime, wallTime);
        WriteKey(message, Step, Varint);
        WriteVarint(message, (ulong)step);
        WriteBytes(message, Summary, summary.WrittenSpan);
        return message.WrittenSpan.ToArray();
    }

    private static void WriteKey(ArrayBufferWriter<byte> to, int field, int wireType) => WriteVarint(to, (ulong)(field << 3 | wireType));

    private static void WriteVarint(ArrayBufferWriter<byte> to, ulong value)
    {
        for (; value >= 0x80; value >>= 7) to.Write([(byte)(value | 0x80)]);
        to.Write([(byte)value]);
    }

    private static void WriteBytes(ArrayBufferWriter<byte> to, int field, ReadOnlySpan<byte> content)
    {
        WriteKey(to, field, Bytes);
        WriteVarint(to, (ulong)content.Length);
        to.Write(content);
    }

    private static void WriteDouble(ArrayBufferWriter<byte> to, int field, double value)
    {
        WriteKey(to, field, Fixed64);
        BinaryPrimitives.WriteDoubleLittleEndian(to.GetSpan(8), value);
        to.Advance(8);
    }
}
