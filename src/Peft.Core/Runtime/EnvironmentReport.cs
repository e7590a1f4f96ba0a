using System.Globalization;
using System.Text;

namespace Peft.Core;

/// <summary>What <see cref="PeftEnvironment.Diagnose"/> found. <see cref="ToString"/> is the text to put into a bug report.</summary>
public sealed record EnvironmentReport
{
    /// <summary>Operating system, as the runtime describes it.</summary>
    public required string OperatingSystem { get; init; }

    /// <summary>The .NET runtime and its identifier.</summary>
    public required string Framework { get; init; }

    /// <summary>Version of the TorchSharp assembly.</summary>
    public required string TorchSharpVersion { get; init; }

    /// <summary>The libtorch version that this TorchSharp is built for.</summary>
    public required string LibtorchWanted { get; init; }

    /// <summary>The version that the loaded libtorch says it is; null if none is loaded or it does not say.</summary>
    public required string? LibtorchFound { get; init; }

    /// <summary>Null if libtorch is loaded and computes; otherwise why not.</summary>
    public required string? LibtorchError { get; init; }

    /// <summary>Whether libtorch is loaded and computes.</summary>
    public bool IsLibtorchLoaded => LibtorchError is null;

    /// <summary>The folders searched for native files.</summary>
    public required IReadOnlyList<string> NativeFolders { get; init; }

    /// <summary>Every native file of libtorch found there, with the loader's answer.</summary>
    public required IReadOnlyList<NativeFileReport> NativeFiles { get; init; }

    /// <summary>Files that <see cref="NativeRuntime"/> tried when the runtime's own search failed, in order.</summary>
    public required IReadOnlyList<NativeLoadAttempt> Attempts { get; init; }

    /// <summary>Symbol versions: the newest that the native files want of each system library, and the newest it has (Linux).</summary>
    public required IReadOnlyList<SystemVersionReport> SystemVersions { get; init; }

    /// <summary>Threads of one operation, and of independent operations; 0 if libtorch is not loaded.</summary>
    public required (int Operation, int Independent) Threads { get; init; }

    /// <summary>Processors that the process may use.</summary>
    public required int Processors { get; init; }

    /// <summary>Vector instructions, e.g. <c>Avx2</c>, <c>Avx512F</c>, <c>Avx512Vbmi</c>, <c>Avx512Bf16</c>.</summary>
    public required IReadOnlyList<string> Simd { get; init; }

    /// <summary>The level of the processor that each part of the process uses.</summary>
    public required CpuReport Cpu { get; init; }

    /// <summary>How matrix products on the CPU are computed and why, by the dtypes of their operands: <see cref="ProductChoice.Describe"/>.</summary>
    public required IReadOnlyList<string> Products { get; init; }

    /// <summary>Whether libtorch can use a CUDA device.</summary>
    public required bool IsCudaAvailable { get; init; }

    /// <summary>CUDA devices that libtorch sees.</summary>
    public required int CudaDevices { get; init; }

    /// <summary>The newest CUDA version that the installed driver serves; null without a driver.</summary>
    public required Version? CudaDriverVersion { get; init; }

    /// <summary>The value of libtorch's page-fault switch <c>THP_MEM_ALLOC_ENABLE</c> that native code sees; null if unset or not on Linux.</summary>
    public required string? PageFaultSwitch { get; init; }

    /// <summary>The turns that libtorch's threads spin before they sleep (<c>GOMP_SPINCOUNT</c>) as native code sees them; null if unset or not on Linux.</summary>
    public required string? ThreadSpinning { get; init; }

    /// <summary>The report as text, one fact a line.</summary>
    public override string ToString()
    {
        var text = new StringBuilder();
        void Line(string name, string value) => text.Append(CultureInfo.InvariantCulture, $"{name,-18}{value}").Append('\n');

        Line("system", $"{OperatingSystem}, {Processors} processors");
        Line("runtime", Framework);
        Line("TorchSharp", TorchSharpVersion);
        Line("libtorch", IsLibtorchLoaded
            ? $"loaded, version {LibtorchFound ?? "unknown"}, wanted {LibtorchWanted}"
            : $"NOT LOADED, wanted {LibtorchWanted}: {LibtorchError}");
        foreach (string folder in NativeFolders) Line("native folder", folder);
        if (NativeFiles.Count == 0) Line("native files", "none found: reference a libtorch package, e.g. " + PeftEnvironment.LibtorchPackage);
        foreach (var file in NativeFiles)
        {
            Line(file.Error is null ? "loads" : "DOES NOT LOAD", file.Path + (file.Error is null ? "" : ": " + file.Error));
            if (file.MissingDependencies.Count > 0) Line("  missing", string.Join(", ", file.MissingDependencies));
        }
        foreach (var attempt in Attempts)
            Line(attempt.Error is null ? "tried, loaded" : "tried, failed", attempt.Path + (attempt.Error is null ? "" : ": " + attempt.Error));
        foreach (var version in SystemVersions)
            Line(version.Family, version + (!version.IsSatisfied && IsLibtorchLoaded ? " (an edited copy is in use)" : ""));
        Line("threads", $"{Threads.Operation} per operation, {Threads.Independent} for independent operations");
        Line("thread spinning", ThreadSpinning is null ? "unset" : $"GOMP_SPINCOUNT={ThreadSpinning}");
        Line("SIMD", Simd.Count == 0 ? "none" : string.Join(", ", Simd));
        Line("CPU level", Cpu.ToString());
        foreach (string product in Products) Line("products", product);
        Line("CUDA", $"{(IsCudaAvailable ? $"available, {CudaDevices} device(s)" : "not available to libtorch")}, "
            + (CudaDriverVersion is null ? "no driver found" : $"the driver serves CUDA {CudaDriverVersion}"));
        Line("page-fault switch", PageFaultSwitch is null ? "unset" : $"THP_MEM_ALLOC_ENABLE={PageFaultSwitch}");
        return text.ToString();
    }
}

/// <summary>One native file of libtorch.</summary>
/// <param name="Path">The file.</param>
/// <param name="Error">The loader's message, or null if it loads.</param>
/// <param name="MissingDependencies">Libraries that it names as needed and that are neither in the searched folders nor known to the system.</param>
public sealed record NativeFileReport(string Path, string? Error, IReadOnlyList<string> MissingDependencies);

/// <summary>A family of symbol versions of a system library.</summary>
/// <param name="Family">E.g. <c>GLIBCXX</c>.</param>
/// <param name="Wanted">The newest version that a native file wants.</param>
/// <param name="WantedBy">That file's name.</param>
/// <param name="Found">The newest version of the system's library; null if it was not found.</param>
/// <param name="FoundIn">The system's library.</param>
public sealed record SystemVersionReport(string Family, Version Wanted, string WantedBy, Version? Found, string? FoundIn)
{
    /// <summary>Whether the system has what is wanted.</summary>
    public bool IsSatisfied => Found is not null && Found >= Wanted;

    /// <inheritdoc/>
    public override string ToString()
        => $"wanted {Wanted} (by {WantedBy}), found {(Found is null ? "none" : $"{Found} ({FoundIn})")}{(IsSatisfied ? "" : ": TOO OLD")}";
}
