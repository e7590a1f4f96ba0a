using Peft.Core;

namespace Peft.Benchmarks;

/// <summary>Resident memory by the kernel's counters (Linux); zero elsewhere.</summary>
internal static class ProcessMemory
{
    /// <summary>Peak resident memory since the last reset, in MB.</summary>
    public static double PeakMegabytes => Field("VmHWM");

    /// <summary>Resident memory now, in MB.</summary>
    public static double ResidentMegabytes => Field("VmRSS");

    /// <summary>Resident memory that is not a mapped file, in MB.</summary>
    public static double AnonymousMegabytes => Field("RssAnon");

    /// <summary>Returns free memory to the system (what the matrix-product probe left must not count) and resets the kernel's peak.</summary>
    /// <returns>Whether the kernel let us.</returns>
    public static bool ResetPeak()
    {
        if (!OperatingSystem.IsLinux()) return false;
        AllocatorTuning.Release();
        try
        {
            File.WriteAllText("/proc/self/clear_refs", "5");
            return true;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return false;
        }
    }

    private static double Field(string name)
    {
        if (!OperatingSystem.IsLinux()) return 0;
        string line = File.ReadLines("/proc/self/status").First(l => l.StartsWith(name + ":", StringComparison.Ordinal));
        return double.Parse(line.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries)[1]) * 1024 / 1e6;
    }
}
