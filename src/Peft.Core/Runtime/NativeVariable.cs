using System.Runtime.InteropServices;

namespace Peft.Core;

/// <summary>
/// Environment variables as native code on Linux sees them: <see cref="Environment.SetEnvironmentVariable(string, string)"/> does not reach it.
/// libtorch and its libraries read theirs once, so they must be set before it is loaded.
/// </summary>
internal static class NativeVariable
{
    /// <summary>Sets a variable unless the user has set it, to whatever value. Does nothing off Linux.</summary>
    public static void SetUnlessSet(string name, string value)
    {
        if (!OperatingSystem.IsLinux()) return;
        try
        {
            _ = SetEnvironment(name, value, 0);
        }
        catch (Exception e) when (e is DllNotFoundException or EntryPointNotFoundException)
        {
            // No glibc under this name (musl): libtorch does not run there either, and its own loader will say so.
        }
    }

    /// <summary>The value; null if unset or not on Linux.</summary>
    public static string? Get(string name)
    {
        if (!OperatingSystem.IsLinux()) return null;
        try
        {
            return Marshal.PtrToStringUTF8(GetEnvironment(name));
        }
        catch (Exception e) when (e is DllNotFoundException or EntryPointNotFoundException)
        {
            return null;
        }
    }

    [DllImport("libc", EntryPoint = "setenv")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int SetEnvironment(
        [MarshalAs(UnmanagedType.LPUTF8Str)] string name, [MarshalAs(UnmanagedType.LPUTF8Str)] string value, int overwrite);

    [DllImport("libc", EntryPoint = "getenv")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern IntPtr GetEnvironment([MarshalAs(UnmanagedType.LPUTF8Str)] string name);
}
