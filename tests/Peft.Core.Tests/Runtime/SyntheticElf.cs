using System.Buffers.Binary;
using System.Text;

namespace Peft.Core.Tests;

/// <summary>A small ELF64 file that wants symbol versions of libstdc++ and one symbol.</summary>
internal static class SyntheticElf
{
    private const int HeaderBytes = 64;
    private const int SectionBytes = 64;

    public static byte[] Make(string symbol, params string[] versions)
    {
        var names = new MemoryStream();
        names.WriteByte(0);
        uint Name(string text)
        {
            names.Position = names.Length;
            uint at = (uint)names.Length;
            names.Write(Encoding.ASCII.GetBytes(text + "\0"));
            return at;
        }

        uint library = Name("libstdc++.so.6");
        Name(symbol);
        var needs = new byte[16 + 16 * versions.Length];
        BinaryPrimitives.WriteUInt16LittleEndian(needs, 1);
        BinaryPrimitives.WriteUInt16LittleEndian(needs.AsSpan(2), (ushort)versions.Length);
        BinaryPrimitives.WriteUInt32LittleEndian(needs.AsSpan(4), library);
        BinaryPrimitives.WriteUInt32LittleEndian(needs.AsSpan(8), 16);
        for (int i = 0; i < versions.Length; i++)
        {
            var entry = needs.AsSpan(16 + 16 * i, 16);
            BinaryPrimitives.WriteUInt32LittleEndian(entry, 0xdead0000u + (uint)i);
            BinaryPrimitives.WriteUInt16LittleEndian(entry[6..], (ushort)(i + 2));
            BinaryPrimitives.WriteUInt32LittleEndian(entry[8..], Name(versions[i]));
            BinaryPrimitives.WriteUInt32LittleEndian(entry[12..], i == versions.Length - 1 ? 0u : 16u);
        }
        var dynamic = new byte[32];
        BinaryPrimitives.WriteUInt64LittleEndian(dynamic, 1);
        BinaryPrimitives.WriteUInt64LittleEndian(dynamic.AsSpan(8), library);

        byte[] strings = names.ToArray();
        int needsAt = HeaderBytes + strings.Length;
        int dynamicAt = needsAt + needs.Length;
        int tableAt = dynamicAt + dynamic.Length;
        var file = new byte[tableAt + 4 * SectionBytes];
        byte[] magic = [0x7f, (byte)'E', (byte)'L', (byte)'F', 2, 1];
        magic.CopyTo(file, 0);
        BinaryPrimitives.WriteUInt64LittleEndian(file.AsSpan(40), (ulong)tableAt);
        BinaryPrimitives.WriteUInt16LittleEndian(file.AsSpan(58), SectionBytes);
        BinaryPrimitives.WriteUInt16LittleEndian(file.AsSpan(60), 4);
        void Section(int index, uint kind, int offset, byte[] contents, uint link)
        {
            contents.CopyTo(file, offset);
            var entry = file.AsSpan(tableAt + index * SectionBytes, SectionBytes);
            BinaryPrimitives.WriteUInt32LittleEndian(entry[4..], kind);
            BinaryPrimitives.WriteUInt64LittleEndian(entry[24..], (ulong)offset);
            BinaryPrimitives.WriteUInt64LittleEndian(entry[32..], (ulong)contents.Length);
            BinaryPrimitives.WriteUInt32LittleEndian(entry[40..], link);
        }

        Section(1, 3, HeaderBytes, strings, 0);
        Section(2, 0x6ffffffe, needsAt, needs, 1);
        Section(3, 6, dynamicAt, dynamic, 1);
        return file;
    }
}
