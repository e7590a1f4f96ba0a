using System.Diagnostics;
using System.Runtime.InteropServices;

namespace Peft.Benchmarks;

/// <summary>
/// What seconds are read from: the wall, or (<c>--clock cpu</c>, one thread, Linux) the calling thread's processor time, which a busy machine disturbs
/// less. Figures to report are wall figures.
/// </summary>
internal static unsafe class Clock
{
    /// <summary>Whether processor time is read.</summary>
    public static bool ProcessorTime { get; set; }

    /// <summary>A moment, in seconds.</summary>
    public static double Now()
    {
        if (!ProcessorTime) return Stopwatch.GetTimestamp() / (double)Stopwatch.Frequency;
        long* time = stackalloc long[2];
        _ = Read(3, time);      // CLOCK_THREAD_CPUTIME_ID
        return time[0] + time[1] * 1e-9;
    }

    [DllImport("libc", EntryPoint = "clock_gettime")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int Read(int clock, long* time);
}
