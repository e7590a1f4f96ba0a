using System.Runtime.InteropServices;

namespace Peft.Benchmarks;

/// <summary>The system's cache of file contents (Linux).</summary>
internal static class PageCache
{
    /// <summary>Asks the kernel to forget a folder's files.</summary>
    public static void Evict(string folder)
    {
        if (!OperatingSystem.IsLinux()) return;
        foreach (string file in Directory.EnumerateFiles(folder))
        {
            using var handle = File.OpenHandle(file);
            _ = Advise((int)handle.DangerousGetHandle(), 0, 0, 4);      // POSIX_FADV_DONTNEED
        }
    }

    [DllImport("libc", EntryPoint = "posix_fadvise")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int Advise(int file, long offset, long length, int advice);
}
