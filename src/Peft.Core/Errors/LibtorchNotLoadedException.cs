namespace Peft.Core;

/// <summary>libtorch cannot be loaded into this process.</summary>
public sealed class LibtorchNotLoadedException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="report">What was found.</param>
    public LibtorchNotLoadedException(EnvironmentReport report)
        : base(MessageOf(report))
    {
        Report = report;
    }

    /// <summary>What was found: files, the loader's errors, versions.</summary>
    public EnvironmentReport Report { get; }

    private static string MessageOf(EnvironmentReport report)
    {
        ArgumentNullException.ThrowIfNull(report);
        string next = report.NativeFiles.Count == 0
            ? $"Add a libtorch package to the application: {PeftEnvironment.LibtorchPackage} for this machine's CPU, or TorchSharp-cuda-windows or TorchSharp-cuda-linux."
            : "Restore what is missing below, or clean the output folder and build again.";
        return $"libtorch {report.LibtorchWanted} cannot be loaded: {report.LibtorchError} {next}\n{report}";
    }
}
