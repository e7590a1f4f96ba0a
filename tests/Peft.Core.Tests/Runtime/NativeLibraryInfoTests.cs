using Xunit;

namespace Peft.Core.Tests;

public sealed class NativeLibraryInfoTests
{
    [Fact]
    public void The_newest_version_is_found_by_number()
    {
        string[] versions = ["GLIBCXX_3.4", "GLIBCXX_3.4.9", "GLIBCXX_3.4.30", "GLIBC_2.99", "GLIBCXX_TUNABLES"];
        Assert.Equal(new Version(3, 4, 30), NativeLibraryInfo.Newest(versions, "GLIBCXX"));
        Assert.Null(NativeLibraryInfo.Newest(versions, "CXXABI"));
    }

    [Fact]
    public void A_file_of_another_kind_or_none_at_all_is_unknown()
    {
        Assert.Equal(NativeLibraryFormat.Unknown, NativeLibraryInfo.Read(Path.Combine(AppContext.BaseDirectory, "Peft.Core.xml")).Format);
        Assert.Equal(NativeLibraryFormat.Unknown, NativeLibraryInfo.Read(Path.Combine(AppContext.BaseDirectory, "none.so")).Format);
    }

    [Fact]
    public void A_Windows_library_tells_its_imports()
    {
        // SkiaSharp's, which the packages put beside every application, whatever the system.
        string path = Path.Combine(AppContext.BaseDirectory, "runtimes", "win-x64", "native", "libSkiaSharp.dll");
        Assert.SkipUnless(File.Exists(path), "no Windows library in the output folder");
        var info = NativeLibraryInfo.Read(path);
        Assert.Equal(NativeLibraryFormat.PortableExecutable, info.Format);
        Assert.Contains("KERNEL32.dll", info.Dependencies);
        Assert.Empty(info.Wants);
    }
}
