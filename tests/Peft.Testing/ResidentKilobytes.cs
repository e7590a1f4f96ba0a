namespace Peft.Testing;

/// <summary>Resident memory of this process by the kernel's counters (Linux), in kB.</summary>
public static class ResidentKilobytes
{
    /// <summary>Pages of no file.</summary>
    public static long Anonymous => Field("RssAnon");

    /// <summary>Pages of mapped files.</summary>
    public static long Mapped => Field("RssFile");

    private static long Field(string name)
        => long.Parse(File.ReadLines("/proc/self/status").First(l => l.StartsWith(name + ":", StringComparison.Ordinal)).Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries)[1]);
}
