using System.Diagnostics;

namespace Peft.Testing;

/// <summary>Processes with mounts of their own: small disks, and files that cannot be removed. Linux, where a user may have them.</summary>
public static class PrivateMounts
{
    public const string WhatIsNeeded = "needs Linux and the right to mount a disk of its own (unshare -Urm, tmpfs)";

    private static readonly Lazy<bool> Possible = new(Try);

    public static bool ArePossible => Possible.Value;

    /// <summary>The beginning of a command, to be followed by what runs with the mounts.</summary>
    /// <param name="mount">A shell command that mounts; $0 is the path.</param>
    /// <param name="path">The path.</param>
    public static IReadOnlyList<string> Command(string mount, string path) => ["unshare", "-Urm", "sh", "-c", $"{mount} && exec \"$@\"", path];

    private static bool Try()
    {
        if (!OperatingSystem.IsLinux()) return false;
        using var trial = Process.Start(new ProcessStartInfo("unshare", ["-Urm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]) { RedirectStandardError = true })!;
        trial.WaitForExit();
        return trial.ExitCode == 0;
    }
}
