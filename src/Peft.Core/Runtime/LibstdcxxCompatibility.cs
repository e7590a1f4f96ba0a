using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text;

namespace Peft.Core;

/// <summary>
/// Makes a copy of TorchSharp's Linux library that loads with the libstdc++ of GCC 12 and older.
/// </summary>
/// <remarks>
/// The library needs version <c>GLIBCXX_3.4.32</c> for one symbol, <c>std::ios_base_library_init()</c>, which only makes sure that the
/// standard streams are initialised. The copy names <c>std::ios_base::Init::Init()</c> instead: it does the same, ignores its
/// <c>this</c>, and exists in every libstdc++. The name lies in <c>.dynstr</c> (the new one is shorter), the version in
/// <c>.gnu.version_r</c>, where its entry gets the name and hash of <c>GLIBCXX_3.4</c>.
/// </remarks>
internal static class LibstdcxxCompatibility
{
    private const string WantedSymbol = "_ZSt21ios_base_library_initv";
    private const string OlderSymbol = "_ZNSt8ios_base4InitC1Ev";
    private const string WantedVersion = "GLIBCXX_3.4.32";
    private const string OlderVersion = "GLIBCXX_3.4";
    private const uint VersionNeeds = 0x6ffffffe;   // SHT_GNU_verneed

    /// <summary>Writes the edited copy into the user's cache folder (once) and returns its path.</summary>
    /// <param name="library">The library as the package ships it.</param>
    /// <returns>The copy, or null if <paramref name="library"/> does not ask for the newer version, so that editing cannot help.</returns>
    public static string? MakeLoadableCopy(string library)
    {
        byte[] bytes = File.ReadAllBytes(library);
        if (!Edit(bytes)) return null;
        string folder = Path.Combine(CacheFolder(), Convert.ToHexString(SHA256.HashData(bytes))[..16]);
        string copy = Path.Combine(folder, Path.GetFileName(library));
        if (File.Exists(copy) && File.ReadAllBytes(copy).AsSpan().SequenceEqual(bytes)) return copy;
        Directory.CreateDirectory(folder);
        string temporary = Path.Combine(folder, Path.GetRandomFileName());
        File.WriteAllBytes(temporary, bytes);
        File.Move(temporary, copy, overwrite: true);
        return copy;
    }

    private static string CacheFolder()
    {
        string user = Environment.GetFolderPath(Environment.SpecialFolder.LocalApplicationData, Environment.SpecialFolderOption.DoNotVerify);
        foreach (string root in new[] { user, Path.GetTempPath() })
        {
            if (root.Length == 0) continue;
            string folder = Path.Combine(root, "peft-net", "native");
            try
            {
                Directory.CreateDirectory(folder);
                return folder;
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                // A home folder that cannot be written (containers): the next root.
            }
        }
        return Path.Combine(Path.GetTempPath(), "peft-net", "native");
    }

    /// <summary>Edits an ELF64 little-endian image in place.</summary>
    /// <returns>False if the image is of another kind or lacks the symbol or the version: nothing is changed then.</returns>
    internal static bool Edit(Span<byte> elf)
    {
        if (elf.Length < 64 || !elf[..6].SequenceEqual(new byte[] { 0x7f, (byte)'E', (byte)'L', (byte)'F', 2, 1 })) return false;
        long table = (long)BinaryPrimitives.ReadUInt64LittleEndian(elf[40..]);
        int entrySize = BinaryPrimitives.ReadUInt16LittleEndian(elf[58..]);
        int count = BinaryPrimitives.ReadUInt16LittleEndian(elf[60..]);
        if (table <= 0 || table + (long)entrySize * count > elf.Length) return false;

        for (int i = 0; i < count; i++)
        {
            var section = elf[(int)(table + (long)i * entrySize)..];
            if (BinaryPrimitives.ReadUInt32LittleEndian(section[4..]) != VersionNeeds) continue;
            var needs = Contents(elf, section);
            int link = (int)BinaryPrimitives.ReadUInt32LittleEndian(section[40..]);
            if (link >= count) return false;
            var strings = Contents(elf, elf[(int)(table + (long)link * entrySize)..]);

            int symbol = IndexOfName(strings, WantedSymbol);
            int older = IndexOfName(strings, OlderVersion);
            int entry = FindVersion(needs, strings, WantedVersion);
            if (symbol < 0 || older < 0 || entry < 0) return false;

            var name = strings.Slice(symbol, WantedSymbol.Length);
            name.Clear();
            Encoding.ASCII.GetBytes(OlderSymbol, name);
            BinaryPrimitives.WriteUInt32LittleEndian(needs[entry..], ElfHash(OlderVersion));
            BinaryPrimitives.WriteUInt32LittleEndian(needs[(entry + 8)..], (uint)older);
            return true;
        }
        return false;
    }

    private static Span<byte> Contents(Span<byte> elf, Span<byte> section)
        => elf.Slice((int)BinaryPrimitives.ReadUInt64LittleEndian(section[24..]), (int)BinaryPrimitives.ReadUInt64LittleEndian(section[32..]));

    private static int IndexOfName(ReadOnlySpan<byte> strings, string name)
    {
        byte[] pattern = Encoding.ASCII.GetBytes("\0" + name + "\0");
        int at = strings.IndexOf(pattern);
        return at < 0 ? -1 : at + 1;
    }

    /// <summary>Offset of the Elf64_Vernaux entry (hash, flags, other, name, next) that names <paramref name="version"/>, or -1.</summary>
    private static int FindVersion(ReadOnlySpan<byte> needs, ReadOnlySpan<byte> strings, string version)
    {
        byte[] pattern = Encoding.ASCII.GetBytes(version + "\0");
        for (int need = 0; ;)
        {
            int auxiliaries = BinaryPrimitives.ReadUInt16LittleEndian(needs[(need + 2)..]);
            int entry = need + (int)BinaryPrimitives.ReadUInt32LittleEndian(needs[(need + 8)..]);
            for (int i = 0; i < auxiliaries; i++)
            {
                int name = (int)BinaryPrimitives.ReadUInt32LittleEndian(needs[(entry + 8)..]);
                if (strings[name..].StartsWith(pattern)) return entry;
                entry += (int)BinaryPrimitives.ReadUInt32LittleEndian(needs[(entry + 12)..]);
            }
            int next = (int)BinaryPrimitives.ReadUInt32LittleEndian(needs[(need + 12)..]);
            if (next == 0) return -1;
            need += next;
        }
    }

    /// <summary>The hash of the System V ABI, used for version names.</summary>
    private static uint ElfHash(string name)
    {
        uint hash = 0;
        foreach (char c in name)
        {
            hash = (hash << 4) + c;
            uint top = hash & 0xf0000000;
            if (top != 0) hash ^= top >> 24;
            hash &= ~top;
        }
        return hash;
    }
}
