using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text;

namespace Peft.Core;

/// <summary>
/// Makes a copy of TorchSharp's Linux library that loads with the libstdc++ of GCC 12 and older. <see cref="NativeRuntime"/> does it
/// by itself where it is needed.
/// </summary>
/// <remarks>
/// The library needs version <c>GLIBCXX_3.4.32</c> for one symbol, <c>std::ios_base_library_init()</c>, which only makes sure that the
/// standard streams are initialised. The copy names <c>std::ios_base::Init::Init()</c> instead: it does the same, ignores its
/// <c>this</c>, and exists in every libstdc++. The name lies in <c>.dynstr</c> (the new one is shorter), the version in
/// <c>.gnu.version_r</c>, where its entry gets the name and hash of <c>GLIBCXX_3.4</c>.
/// </remarks>
public static class LibstdcxxCompatibility
{
    private const string WantedSymbol = "_ZSt21ios_base_library_initv";
    private const string OlderSymbol = "_ZNSt8ios_base4InitC1Ev";
    private const string WantedVersion = "GLIBCXX_3.4.32";
    private const string OlderVersion = "GLIBCXX_3.4";

    /// <summary>Writes the edited copy and returns its path.</summary>
    /// <param name="library">The library as the package ships it.</param>
    /// <param name="cacheFolder">Where copies are kept from one process to the next; null for the user's local application data.</param>
    /// <returns>The copy, or null if <paramref name="library"/> does not ask for the newer version, so that editing cannot help.
    /// Where the cache folder cannot be written, the copy lies in a fresh temporary folder, which the caller deletes when it has loaded it.</returns>
    /// <exception cref="IOException">Neither the cache nor the temporary folder can be written.</exception>
    public static LibraryCopy? MakeLoadableCopy(string library, string? cacheFolder = null)
    {
        byte[] bytes = File.ReadAllBytes(library);
        if (!Edit(bytes)) return null;
        string name = Path.GetFileName(library);
        string root = cacheFolder ?? DefaultCacheFolder;
        if (root.Length > 0 && TryKeep(root, name, bytes) is { } kept) return new LibraryCopy(kept, IsTemporary: false);

        // Readable by this user alone and new: nobody else can have put a library there.
        string temporary = Directory.CreateTempSubdirectory("peft-net-").FullName;
        string copy = Path.Combine(temporary, name);
        File.WriteAllBytes(copy, bytes);
        return new LibraryCopy(copy, IsTemporary: true);
    }

    private static string DefaultCacheFolder
    {
        get
        {
            string user = Environment.GetFolderPath(Environment.SpecialFolder.LocalApplicationData, Environment.SpecialFolderOption.DoNotVerify);
            return user.Length == 0 ? "" : Path.Combine(user, "peft-net", "native");
        }
    }

    private static string? TryKeep(string root, string name, byte[] bytes)
    {
        try
        {
            string folder = Path.Combine(root, Convert.ToHexString(SHA256.HashData(bytes))[..16]);
            string copy = Path.Combine(folder, name);
            if (File.Exists(copy) && File.ReadAllBytes(copy).AsSpan().SequenceEqual(bytes)) return copy;
            Directory.CreateDirectory(folder);
            string partial = Path.Combine(folder, Path.GetRandomFileName());
            File.WriteAllBytes(partial, bytes);
            File.Move(partial, copy, overwrite: true);
            return copy;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;   // A home folder that cannot be written (containers) or is full.
        }
    }

    /// <summary>Edits a library's bytes in place.</summary>
    /// <param name="elf">A whole ELF64 little-endian file.</param>
    /// <returns>False if the file is of another kind or does not ask for the newer version: nothing is changed then.</returns>
    public static bool Edit(byte[] elf)
    {
        ArgumentNullException.ThrowIfNull(elf);
        using var stream = new MemoryStream(elf, writable: false);
        if (ElfImage.TryOpen(stream) is not { } image) return false;
        if (!image.TryFind(ElfVersions.NeedsKind, out var needsSection, out var namesSection)) return false;
        var names = elf.AsSpan((int)namesSection.Offset, namesSection.Length);
        int symbol = IndexOfName(names, WantedSymbol);
        int older = IndexOfName(names, OlderVersion);
        long entry = -1;
        foreach (var need in ElfVersions.Needs(image.Read(needsSection), image.Read(namesSection)))
            if (need.Version == WantedVersion) entry = need.Entry;
        if (symbol < 0 || older < 0 || entry < 0) return false;

        var name = names.Slice(symbol, WantedSymbol.Length);
        name.Clear();
        Encoding.ASCII.GetBytes(OlderSymbol, name);
        var needs = elf.AsSpan((int)needsSection.Offset, needsSection.Length);
        BinaryPrimitives.WriteUInt32LittleEndian(needs[(int)entry..], ElfHash(OlderVersion));
        BinaryPrimitives.WriteUInt32LittleEndian(needs[((int)entry + 8)..], (uint)older);
        return true;
    }

    private static int IndexOfName(ReadOnlySpan<byte> names, string name)
    {
        int at = names.IndexOf(Encoding.ASCII.GetBytes("\0" + name + "\0"));
        return at < 0 ? -1 : at + 1;
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

/// <summary>An edited copy of a library.</summary>
/// <param name="Path">The copy.</param>
/// <param name="IsTemporary">Whether it lies in a folder made for it alone, to be deleted once it is loaded.</param>
public sealed record LibraryCopy(string Path, bool IsTemporary);
