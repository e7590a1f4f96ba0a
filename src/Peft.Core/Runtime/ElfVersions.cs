namespace Peft.Core;

/// <summary>Symbol versions of an ELF file: those it wants of other libraries and those it defines.</summary>
internal static class ElfVersions
{
    private const uint DynamicKind = 6;                 // SHT_DYNAMIC
    private const uint DefinitionsKind = 0x6ffffffd;    // SHT_GNU_verdef
    /// <summary>SHT_GNU_verneed.</summary>
    public const uint NeedsKind = 0x6ffffffe;
    private const ulong NeededTag = 1;                  // DT_NEEDED

    /// <summary>One wanted version; <paramref name="Entry"/> is the offset of its Elf64_Vernaux in the section.</summary>
    public readonly record struct Need(string Library, string Version, long Entry);

    /// <summary>Walks .gnu.version_r. A section whose links leave it ends the walk.</summary>
    public static IEnumerable<Need> Needs(byte[] section, byte[] names)
    {
        for (long need = 0; need + 16 <= section.Length;)
        {
            int auxiliaries = ElfImage.UInt16At(section, need + 2);
            string library = ElfImage.NameAt(names, ElfImage.UInt32At(section, need + 4)) ?? "";
            long entry = need + ElfImage.UInt32At(section, need + 8);
            for (int i = 0; i < auxiliaries && entry + 16 <= section.Length; i++)
            {
                if (ElfImage.NameAt(names, ElfImage.UInt32At(section, entry + 8)) is { } version)
                    yield return new Need(library, version, entry);
                uint nextEntry = ElfImage.UInt32At(section, entry + 12);
                if (nextEntry == 0) break;
                entry += nextEntry;
            }
            uint next = ElfImage.UInt32At(section, need + 12);
            if (next == 0) yield break;
            need += next;
        }
    }

    /// <summary>The wanted versions of a file.</summary>
    public static IReadOnlyList<Need> Needs(ElfImage image)
        => image.TryFind(NeedsKind, out var section, out var names) ? [.. Needs(image.Read(section), image.Read(names))] : [];

    /// <summary>The versions a file defines, its own name left out.</summary>
    public static IReadOnlyList<string> Definitions(ElfImage image)
    {
        if (!image.TryFind(DefinitionsKind, out var section, out var namesSection)) return [];
        byte[] bytes = image.Read(section);
        byte[] names = image.Read(namesSection);
        var versions = new List<string>();
        for (long at = 0; at + 20 <= bytes.Length;)
        {
            bool isFileName = (ElfImage.UInt16At(bytes, at + 2) & 1) != 0;   // VER_FLG_BASE
            uint name = ElfImage.UInt32At(bytes, at + ElfImage.UInt32At(bytes, at + 12));
            if (!isFileName && ElfImage.NameAt(names, name) is { } version) versions.Add(version);
            uint next = ElfImage.UInt32At(bytes, at + 16);
            if (next == 0) break;
            at += next;
        }
        return versions;
    }

    /// <summary>The libraries a file names as needed.</summary>
    public static IReadOnlyList<string> Dependencies(ElfImage image)
    {
        if (!image.TryFind(DynamicKind, out var section, out var namesSection)) return [];
        byte[] bytes = image.Read(section);
        byte[] names = image.Read(namesSection);
        var libraries = new List<string>();
        for (int at = 0; at + 16 <= bytes.Length; at += 16)
        {
            if (BitConverter.ToUInt64(bytes, at) == NeededTag && ElfImage.NameAt(names, ElfImage.UInt32At(bytes, at + 8)) is { } library)
                libraries.Add(library);
        }
        return libraries;
    }
}
