using System.Runtime.InteropServices;

namespace Peft.Core;

/// <summary>
/// Turns on libtorch's transparent huge pages for large allocations. Without them a large tensor costs more time in page faults than in
/// its arithmetic (clone of 256 MB: 407 ms against 22 ms).
/// </summary>
/// <remarks>libtorch reads the variable through <c>getenv</c> once, so it must be set through libc before libtorch is loaded;
/// <see cref="Environment.SetEnvironmentVariable(string, string)"/> does not reach native code on Linux.</remarks>
internal static class PageFaultSwitch
{
    private const string Variable = "THP_MEM_ALLOC_ENABLE";

    /// <summary>Sets the switch unless the user has set it, to whatever value. Does nothing off Linux.</summary>
    public static void TurnOn()
    {
        if (!OperatingSystem.IsLinux()) return;
        try
        {
            _ = SetEnvironment(Variable, "1", 0);
        }
        catch (Exception e) when (e is DllNotFoundException or EntryPointNotFoundException)
        {
            // No glibc under this name (musl): libtorch does not run there either, and its own loader will say so.
        }
    }

    /// <summary>The value that native code sees; null if unset or not on Linux.</summary>
    public static string? Value
        => OperatingSystem.IsLinux() ? Marshal.PtrToStringUTF8(GetEnvironment(Variable)) : null;

    [DllImport("libc", EntryPoint = "setenv")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int SetEnvironment(
        [MarshalAs(UnmanagedType.LPUTF8Str)] string name, [MarshalAs(UnmanagedType.LPUTF8Str)] string value, int overwrite);

    [DllImport("libc", EntryPoint = "getenv")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern IntPtr GetEnvironment([MarshalAs(UnmanagedType.LPUTF8Str)] string name);
}
