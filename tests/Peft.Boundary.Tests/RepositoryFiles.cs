using System.Diagnostics;
using Peft.Testing;

namespace Peft.Boundary.Tests;

/// <summary>The files of the repository: those that git tracks, or all but build output where there is no git.</summary>
internal static class RepositoryFiles
{
    private static readonly string[] BuildOutput = ["bin", "obj", "artifacts", "TestResults", "out", ".git", ".vs", ".idea", ".vscode"];

    /// <summary>Paths relative to the root, with forward slashes.</summary>
    public static IReadOnlyList<string> All { get; } = FromGit() ?? FromDisk();

    /// <summary>C# files under a folder of the root.</summary>
    public static IEnumerable<string> Sources(params string[] folders)
        => All.Where(f => f.EndsWith(".cs", StringComparison.Ordinal) && folders.Any(d => f.StartsWith(d + "/", StringComparison.Ordinal)));

    public static string Text(string file) => File.ReadAllText(Path.Combine(Repository.Root, file));

    private static List<string>? FromGit()
    {
        try
        {
            var start = new ProcessStartInfo("git", ["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            {
                WorkingDirectory = Repository.Root,
                RedirectStandardOutput = true,
                RedirectStandardError = true,
            };
            using var process = Process.Start(start)!;
            string output = process.StandardOutput.ReadToEnd();
            process.WaitForExit();
            if (process.ExitCode != 0) return null;
            return [.. output.Split('\0', StringSplitOptions.RemoveEmptyEntries).Where(f => File.Exists(Path.Combine(Repository.Root, f)))];
        }
        catch (System.ComponentModel.Win32Exception)
        {
            return null;   // no git on this machine
        }
    }

    private static List<string> FromDisk()
        => [.. Directory.EnumerateFiles(Repository.Root, "*", SearchOption.AllDirectories)
            .Select(f => Path.GetRelativePath(Repository.Root, f).Replace('\\', '/'))
            .Where(f => !f.Split('/').Any(BuildOutput.Contains))];
}
