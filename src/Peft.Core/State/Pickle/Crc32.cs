using System.Runtime.InteropServices;

namespace Peft.Core;

/// <summary>The checksum of zip files (IEEE polynomial), eight bytes at a time.</summary>
internal static class Crc32
{
    private static readonly uint[][] Tables = MakeTables();

    /// <summary>Continues a checksum; start with 0.</summary>
    public static uint Append(uint crc, ReadOnlySpan<byte> bytes)
    {
        crc = ~crc;
        var words = MemoryMarshal.Cast<byte, ulong>(bytes);
        if (BitConverter.IsLittleEndian)
        {
            foreach (ulong word in words)
            {
                ulong mixed = word ^ crc;
                crc = Tables[7][(byte)mixed] ^ Tables[6][(byte)(mixed >> 8)] ^ Tables[5][(byte)(mixed >> 16)] ^ Tables[4][(byte)(mixed >> 24)]
                    ^ Tables[3][(byte)(mixed >> 32)] ^ Tables[2][(byte)(mixed >> 40)] ^ Tables[1][(byte)(mixed >> 48)] ^ Tables[0][mixed >> 56];
            }
            bytes = bytes[(words.Length * 8)..];
        }
        foreach (byte value in bytes) crc = Tables[0][(byte)(crc ^ value)] ^ (crc >> 8);
        return ~crc;
    }

    private static uint[][] MakeTables()
    {
        uint[][] tables = [.. Enumerable.Range(0, 8).Select(_ => new uint[256])];
        for (uint i = 0; i < 256; i++)
        {
            uint crc = i;
            for (int bit = 0; bit < 8; bit++) crc = (crc & 1) != 0 ? 0xEDB88320 ^ (crc >> 1) : crc >> 1;
            tables[0][i] = crc;
        }
        for (int table = 1; table < 8; table++)
            for (int i = 0; i < 256; i++)
                tables[table][i] = (tables[table - 1][i] >> 8) ^ tables[0][(byte)tables[table - 1][i]];
        return tables;
    }
}
