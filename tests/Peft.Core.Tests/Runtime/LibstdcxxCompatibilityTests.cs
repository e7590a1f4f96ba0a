using Xunit;

namespace Peft.Core.Tests;

public sealed class LibstdcxxCompatibilityTests : IDisposable
{
    private const string WantedSymbol = "_ZSt21ios_base_library_initv";
    private static readonly string[] Versions = ["GLIBCXX_3.4.30", "GLIBCXX_3.4.32", "GLIBCXX_3.4"];
    private readonly DirectoryInfo _folder = Directory.CreateTempSubdirectory("peft-elf-");

    public void Dispose() => _folder.Delete(recursive: true);

    private string Write(byte[] elf)
    {
        string path = Path.Combine(_folder.FullName, "libLibTorchSharp.so");
        File.WriteAllBytes(path, elf);
        return path;
    }

    [Fact]
    public void The_edit_changes_the_wanted_version_and_the_symbol_and_nothing_else()
    {
        byte[] before = SyntheticElf.Make(WantedSymbol, Versions);
        byte[] after = [.. before];
        Assert.True(LibstdcxxCompatibility.Edit(after));

        var info = NativeLibraryInfo.Read(Write(after));
        Assert.Equal(NativeLibraryFormat.Elf, info.Format);
        Assert.Equal(["libstdc++.so.6"], info.Dependencies);
        Assert.Equal(["GLIBCXX_3.4.30", "GLIBCXX_3.4", "GLIBCXX_3.4"], info.Wants.Select(w => w.Version));
        string text = System.Text.Encoding.Latin1.GetString(after);
        Assert.Contains("\0_ZNSt8ios_base4InitC1Ev\0", text, StringComparison.Ordinal);
        Assert.DoesNotContain(WantedSymbol, text, StringComparison.Ordinal);
        // 28 bytes of the name, 4 of the hash, 4 of the name's offset, at most.
        Assert.InRange(before.Zip(after).Count(pair => pair.First != pair.Second), 1, 36);
    }

    [Fact]
    public void The_hash_is_the_one_that_glibc_has_for_GLIBCXX_3_4()
    {
        byte[] elf = SyntheticElf.Make(WantedSymbol, Versions);
        Assert.True(LibstdcxxCompatibility.Edit(elf));
        Assert.True(elf.AsSpan().IndexOf((ReadOnlySpan<byte>)[0x74, 0x29, 0x92, 0x08]) > 0);   // 0x08922974
    }

    [Fact]
    public void A_second_edit_does_nothing()
    {
        byte[] elf = SyntheticElf.Make(WantedSymbol, Versions);
        Assert.True(LibstdcxxCompatibility.Edit(elf));
        byte[] once = [.. elf];
        Assert.False(LibstdcxxCompatibility.Edit(elf));
        Assert.Equal(once, elf);
    }

    [Theory]
    [InlineData("_ZSt4cout", "GLIBCXX_3.4.30,GLIBCXX_3.4.32,GLIBCXX_3.4")]
    [InlineData(WantedSymbol, "GLIBCXX_3.4.30,GLIBCXX_3.4")]
    [InlineData(WantedSymbol, "GLIBCXX_3.4.32")]
    public void A_library_without_the_symbol_the_version_or_the_older_one_is_left_alone(string symbol, string versions)
    {
        byte[] elf = SyntheticElf.Make(symbol, versions.Split(','));
        byte[] before = [.. elf];
        Assert.False(LibstdcxxCompatibility.Edit(elf));
        Assert.Equal(before, elf);
        Assert.Null(LibstdcxxCompatibility.MakeLoadableCopy(Write(elf), _folder.FullName));
    }

    [Fact]
    public void A_file_cut_anywhere_is_left_alone()
    {
        byte[] whole = SyntheticElf.Make(WantedSymbol, Versions);
        for (int length = 0; length < whole.Length; length++)
        {
            byte[] cut = whole[..length];
            Assert.False(LibstdcxxCompatibility.Edit(cut));
            Assert.Equal(whole[..length], cut);
        }
    }

    [Fact]
    public void Broken_headers_never_throw()
    {
        byte[] whole = SyntheticElf.Make(WantedSymbol, Versions);
        for (int at = 0; at < whole.Length; at++)
        {
            byte[] broken = [.. whole];
            broken[at] = 0xff;
            LibstdcxxCompatibility.Edit(broken);
            NativeLibraryInfo.Read(Write(broken));
        }
    }

    [Fact]
    public void The_copy_is_made_once_and_a_damaged_one_is_made_anew()
    {
        string library = Write(SyntheticElf.Make(WantedSymbol, Versions));
        string cache = Path.Combine(_folder.FullName, "cache");
        var first = LibstdcxxCompatibility.MakeLoadableCopy(library, cache)!;
        Assert.False(first.IsTemporary);
        Assert.StartsWith(cache, first.Path, StringComparison.Ordinal);
        var written = new DateTime(2020, 1, 2, 3, 4, 5, DateTimeKind.Utc);
        File.SetLastWriteTimeUtc(first.Path, written);
        Assert.Equal(first, LibstdcxxCompatibility.MakeLoadableCopy(library, cache));
        Assert.Equal(written, File.GetLastWriteTimeUtc(first.Path));

        byte[] good = File.ReadAllBytes(first.Path);
        File.WriteAllBytes(first.Path, good[..40]);
        Assert.Equal(first, LibstdcxxCompatibility.MakeLoadableCopy(library, cache));
        Assert.Equal(good, File.ReadAllBytes(first.Path));
        Assert.Single(Directory.GetFiles(Path.GetDirectoryName(first.Path)!));
    }

    [Fact]
    public void A_cache_that_cannot_be_written_falls_back_to_a_fresh_temporary_folder()
    {
        string library = Write(SyntheticElf.Make(WantedSymbol, Versions));
        string inTheWay = Path.Combine(_folder.FullName, "file");
        File.WriteAllText(inTheWay, "no folder");
        var copy = LibstdcxxCompatibility.MakeLoadableCopy(library, Path.Combine(inTheWay, "cache"))!;
        Assert.True(copy.IsTemporary);
        Assert.Equal("libLibTorchSharp.so", Path.GetFileName(copy.Path));
        Assert.False(LibstdcxxCompatibility.Edit(File.ReadAllBytes(copy.Path)));
        Directory.Delete(Path.GetDirectoryName(copy.Path)!, recursive: true);
    }

    [Fact]
    public void The_shipped_library_wants_the_newer_version_and_its_copy_does_not()
    {
        string? library = PeftEnvironment.Diagnose().NativeFiles.Select(f => f.Path)
            .FirstOrDefault(path => Path.GetFileName(path) == "libLibTorchSharp.so");
        Assert.SkipWhen(library is null, "this system's TorchSharp is no ELF file");
        Assert.Contains(NativeLibraryInfo.Read(library!).Wants, w => w.Version == "GLIBCXX_3.4.32");
        var copy = LibstdcxxCompatibility.MakeLoadableCopy(library!, Path.Combine(_folder.FullName, "cache"))!;
        var info = NativeLibraryInfo.Read(copy.Path);
        Assert.Equal(new Version(3, 4, 30), NativeLibraryInfo.Newest(info.Wants.Select(w => w.Version), "GLIBCXX"));
        Assert.Contains("libtorch_cpu.so", info.Dependencies);
    }
}
