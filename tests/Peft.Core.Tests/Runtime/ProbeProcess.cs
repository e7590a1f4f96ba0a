using System.Diagnostics;
using System.Runtime.InteropServices;
using Peft.Testing;

namespace Peft.Core.Tests;

/// <summary>Runs tests/Peft.Probe from a copy of its output folder, so that its native files can be broken.</summary>
internal sealed class ProbeProcess : IDisposable
{
    public const string Configuration =
#if DEBUG
        "Debug";
#else
        "Release";
#endif
    private readonly DirectoryInfo _folder = Directory.CreateTempSubdirectory("peft-probe-");

    public ProbeProcess()
    {
        string source = Path.Combine(Repository.Root, "tests", "Peft.Probe", "bin", Configuration, "net10.0");
        foreach (string file in Directory.EnumerateFiles(source)) File.Copy(file, Path.Combine(_folder.FullName, Path.GetFileName(file)));
        foreach (string file in Directory.EnumerateFiles(Path.Combine(source, "runtimes", RuntimeInformation.RuntimeIdentifier, "native")))
        {
            Directory.CreateDirectory(NativeFolder);
            File.CreateSymbolicLink(Path.Combine(NativeFolder, Path.GetFileName(file)), file);   // half a gigabyte
        }
    }

    public string NativeFolder => Path.Combine(_folder.FullName, "runtimes", RuntimeInformation.RuntimeIdentifier, "native");

    public void Hide(string nativeFile) => File.Delete(Path.Combine(NativeFolder, nativeFile));

    public (int ExitCode, string Output) Run(string command, params (string Name, string Value)[] environment)
    {
        var start = new ProcessStartInfo("dotnet", [Path.Combine(_folder.FullName, "Peft.Probe.dll"), command])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        start.Environment["DOTNET_ROLL_FORWARD"] = "Major";
        foreach (var (name, value) in environment) start.Environment[name] = value;
        using var process = Process.Start(start)!;
        var errors = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return (process.ExitCode, output + errors.Result);
    }

    public void Dispose() => _folder.Delete(recursive: true);
}
