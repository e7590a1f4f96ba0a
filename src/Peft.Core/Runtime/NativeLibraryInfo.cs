namespace Peft.Core;

/// <summary>What a native library says about itself: the libraries it needs, and on Linux the symbol versions it wants and defines.</summary>
/// <param name="Path">The file.</param>
/// <param name="Format">How the file is laid out.</param>
/// <param name="Dependencies">The libraries it names as needed, in file order.</param>
/// <param name="Wants">Symbol versions wanted of other libraries, e.g. <c>GLIBCXX_3.4.32</c> of <c>libstdc++.so.6</c> (ELF only).</param>
/// <param name="Defines">Symbol versions it defines (ELF only).</param>
public sealed record NativeLibraryInfo(
    string Path,
    NativeLibraryFormat Format,
    IReadOnlyList<string> Dependencies,
    IReadOnlyList<SymbolVersion> Wants,
    IReadOnlyList<string> Defines)
{
    /// <summary>Reads a library's headers; the rest of the file is not touched.</summary>
    /// <param name="path">The file.</param>
    /// <returns>A file of another kind, a broken one or one that cannot be opened has <see cref="NativeLibraryFormat.Unknown"/> and empty lists.</returns>
    public static NativeLibraryInfo Read(string path)
    {
        try
        {
            using var stream = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.Read | FileShare.Delete);
            if (ElfImage.TryOpen(stream) is { } elf)
            {
                var wants = ElfVersions.Needs(elf).Select(need => new SymbolVersion(need.Library, need.Version)).ToList();
                return new NativeLibraryInfo(path, NativeLibraryFormat.Elf, ElfVersions.Dependencies(elf), wants, ElfVersions.Definitions(elf));
            }
            stream.Position = 0;
            if (PeImports.TryRead(stream) is { } imports)
                return new NativeLibraryInfo(path, NativeLibraryFormat.PortableExecutable, imports, [], []);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // Said by the loader's own error, which the report holds.
        }
        return new NativeLibraryInfo(path, NativeLibraryFormat.Unknown, [], [], []);
    }

    /// <summary>The newest of some versions of one family.</summary>
    /// <param name="versions">Versions such as <c>GLIBCXX_3.4.30</c>.</param>
    /// <param name="family">The family, such as <c>GLIBCXX</c>.</param>
    /// <returns>The newest by number, or null if none is of that family.</returns>
    public static Version? Newest(IEnumerable<string> versions, string family)
    {
        ArgumentNullException.ThrowIfNull(versions);
        string prefix = family + "_";
        return versions.Where(v => v.StartsWith(prefix, StringComparison.Ordinal))
            .Select(v => Version.TryParse(v[prefix.Length..], out var version) ? version : null)
            .Max();
    }
}

/// <summary>How a native library is laid out.</summary>
public enum NativeLibraryFormat
{
    /// <summary>Neither of the others, or not readable.</summary>
    Unknown,

    /// <summary>Linux.</summary>
    Elf,

    /// <summary>Windows.</summary>
    PortableExecutable,
}

/// <summary>A symbol version that a library wants of another.</summary>
/// <param name="Library">The library that must define it.</param>
/// <param name="Version">The version, e.g. <c>GLIBC_2.34</c>.</param>
public readonly record struct SymbolVersion(string Library, string Version);
