using System.Globalization;
using System.Runtime.InteropServices;

namespace Peft.Core;

/// <summary>
/// Keeps glibc from giving the memory of freed tensors back to the system after every operator.
/// </summary>
/// <remarks>
/// By default an allocation of more than 32 MB at most (128 kB at first) is a mapping of its own: the kernel zeroes its pages again for
/// every temporary tensor. Measured: a batched bf16 matrix product with a 5 MB result takes 1.2 to 1.8 ms with that, 0.7 ms without.
/// The variable <c>PEFT_NATIVE_ALLOCATOR=default</c> leaves glibc as it is. <see cref="Release"/> returns what is free.
/// </remarks>
public static class AllocatorTuning
{
    private const int TrimThreshold = -1;       // M_TRIM_THRESHOLD
    private const int MapThreshold = -3;        // M_MMAP_THRESHOLD
    private const int ArenaMaximum = -8;        // M_ARENA_MAX
    private const string OptOut = "PEFT_NATIVE_ALLOCATOR";

    /// <summary>Less free memory than this is left to the process by <see cref="ReleaseWhereCheap"/>.</summary>
    public const long LeastBytes = 128 << 20;

    /// <summary>Getting pages again takes about a second per GB on a virtual machine; this many bytes for each second that passed make it 6 % at most.</summary>
    private const double BytesPerSecond = 60e6;

    /// <summary>True if the tuning is in force in this process.</summary>
    public static bool IsOn { get; private set; }

    /// <summary>Turns the tuning on, on Linux with glibc, unless the user opted out.</summary>
    internal static void TurnOn()
    {
        if (!OperatingSystem.IsLinux() || Environment.GetEnvironmentVariable(OptOut) == "default") return;
        try
        {
            // One arena, so that memory freed by one thread serves the next; tensors are few and large, the lock is not felt.
            IsOn = SetOption(MapThreshold, 1 << 30) == 1 && SetOption(TrimThreshold, -1) == 1 && SetOption(ArenaMaximum, 1) == 1;
        }
        catch (Exception e) when (e is DllNotFoundException or EntryPointNotFoundException)
        {
            // No glibc under this name: its allocator is another one, and stays as it is.
        }
    }

    /// <summary>
    /// Returns the process's free native memory to the system. Worth calling after a phase with large temporary tensors: loading, merging,
    /// the end of a training. Does nothing off Linux.
    /// </summary>
    public static void Release()
    {
        if (IsOn) _ = Trim(0);
    }

    /// <summary>
    /// Returns free native memory if that is worth it: there are <see cref="LeastBytes"/> of it at least, and getting them again, whose
    /// pages are zeroed then, costs at most about a sixteenth of the time since memory was returned last. Does nothing off Linux, or with a
    /// glibc before 2.33. To be called between the steps of a loop.
    /// </summary>
    /// <param name="sinceLast">The time since the last return (or the start of the loop).</param>
    /// <returns>Whether memory was returned.</returns>
    public static bool ReleaseWhereCheap(TimeSpan sinceLast)
    {
        if (!IsOn) return false;
        long unused = ResidentUnused();
        return unused >= LeastBytes && unused <= sinceLast.TotalSeconds * BytesPerSecond && Trim(0) == 1;
    }

    /// <summary>Anonymous resident memory that neither native allocations nor the managed heap use; 0 if the system does not say.</summary>
    private static long ResidentUnused()
    {
        try
        {
            // Pages: size, resident, of files.
            string[] pages = File.ReadAllText("/proc/self/statm").Split(' ');
            long anonymous = (long.Parse(pages[1], CultureInfo.InvariantCulture) - long.Parse(pages[2], CultureInfo.InvariantCulture)) * Environment.SystemPageSize;
            var native = ReadUsage();
            return anonymous - (long)(native.InUse + native.Mapped) - GC.GetGCMemoryInfo().TotalCommittedBytes;
        }
        catch (Exception e) when (e is EntryPointNotFoundException or IOException or UnauthorizedAccessException)
        {
            return 0;
        }
    }

    [DllImport("libc", EntryPoint = "mallinfo2")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern Usage ReadUsage();

    [DllImport("libc", EntryPoint = "mallopt")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int SetOption(int option, int value);

    [DllImport("libc", EntryPoint = "malloc_trim")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int Trim(nuint pad);

    /// <summary>glibc's <c>struct mallinfo2</c>.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private readonly struct Usage
    {
        private readonly nuint _arena, _freeChunks, _fastChunks, _mappings;
        public readonly nuint Mapped;
        private readonly nuint _unused, _fastBytes;
        public readonly nuint InUse;
        private readonly nuint _free, _trimmable;
    }
}
