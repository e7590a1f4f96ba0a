using System.Diagnostics;
using Peft.Testing;
using Xunit;

namespace Peft.Llava.Tests.Training;

/// <summary>tests/Peft.TrainingProbe as a process; what it prints can be read as it comes.</summary>
internal sealed class TrainingProcess : IDisposable
{
    private readonly Process _process;
    private readonly Task<string> _errors;

    public TrainingProcess(params string[] arguments)
        : this([], arguments)
    {
    }

    /// <summary>Starts it by another command, which gets dotnet and its arguments behind its own.</summary>
    public TrainingProcess(string[] command, string[] arguments)
    {
        string configuration = AppContext.BaseDirectory.Contains("Release", StringComparison.Ordinal) ? "Release" : "Debug";
        string probe = Path.Combine(Repository.Root, "tests", "Peft.TrainingProbe", "bin", configuration, "net10.0", "Peft.TrainingProbe.dll");
        _process = Process.Start(new ProcessStartInfo(command.Length == 0 ? "dotnet" : command[0], [.. command.Skip(1), .. command.Length == 0 ? Array.Empty<string>() : ["dotnet"], probe, .. arguments]) { RedirectStandardOutput = true, RedirectStandardError = true })!;
        _errors = _process.StandardError.ReadToEndAsync();
    }

    public int Id => _process.Id;

    /// <summary>All lines read so far.</summary>
    public List<string> Lines { get; } = [];

    /// <summary>Reads until a line, or to the end.</summary>
    /// <returns>Whether the line came.</returns>
    public bool WaitFor(string line)
    {
        while (_process.StandardOutput.ReadLine() is { } next)
        {
            Lines.Add(next);
            if (next == line) return true;
        }
        return false;
    }

    /// <summary>Sends SIGKILL, and reads what was printed before it.</summary>
    public void Kill()
    {
        _process.Kill();
        WaitFor("");
        _process.WaitForExit();
    }

    /// <summary>Waits for the end.</summary>
    /// <returns>The exit code.</returns>
    public int Finish()
    {
        WaitFor("");
        _process.WaitForExit();
        return _process.ExitCode;
    }

    /// <summary>Waits for an end without an error.</summary>
    public void Succeed() => Assert.True(Finish() == 0, $"{string.Join('\n', Lines.TakeLast(5))}\n{_errors.Result}");

    public void Dispose()
    {
        if (!_process.HasExited) _process.Kill();
        _process.Dispose();
    }
}
