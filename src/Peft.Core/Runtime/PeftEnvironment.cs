using System.Reflection;
using System.Runtime.InteropServices;
using TorchSharp;

namespace Peft.Core;

/// <summary>Finds out what this process runs on, and why libtorch does not load if it does not.</summary>
public static unsafe class PeftEnvironment
{
    private static readonly string[] LibraryNames = ["c10", "torch_cpu", "torch_cuda", "torch", "LibTorchSharp"];
    private static readonly string[] SystemFamilies = ["GLIBC", "GLIBCXX", "CXXABI"];
    private static volatile bool _loaded;

    /// <summary>The CPU libtorch package of this machine.</summary>
    public static string LibtorchPackage => "libtorch-cpu-" + NativeRuntime.PortableRuntimeIdentifier;

    /// <summary>Looks at the machine, the native files and libtorch. Loads libtorch if it can be loaded; never throws.</summary>
    public static EnvironmentReport Diagnose()
    {
        NativeRuntime.Initialize();
        string? error = TryLoad();
        var folders = NativeRuntime.NativeFolders().ToList();
        var files = folders.SelectMany(NativeFilesIn).Select(file => Examine(file, folders)).ToList();
        bool loaded = error is null;
        return new EnvironmentReport
        {
            OperatingSystem = RuntimeInformation.OSDescription,
            Framework = $"{RuntimeInformation.FrameworkDescription}, {RuntimeInformation.RuntimeIdentifier}, process {RuntimeInformation.ProcessArchitecture}",
            TorchSharpVersion = TorchSharpVersion(),
            LibtorchWanted = LibtorchWanted(),
            LibtorchFound = loaded ? LibtorchFound() : null,
            LibtorchError = error,
            NativeFolders = folders,
            NativeFiles = files,
            Attempts = NativeRuntime.Attempts,
            SystemVersions = OperatingSystem.IsLinux() ? SystemVersions(files) : [],
            Threads = loaded ? (torch.get_num_threads(), torch.get_num_interop_threads()) : (0, 0),
            Processors = Environment.ProcessorCount,
            Simd = CpuFeatures.Detect(),
            Cpu = Cpu(loaded ? folders : []),
            Products = ProductChoice.Describe(),
            IsCudaAvailable = loaded && torch.cuda.is_available(),
            CudaDevices = loaded && torch.cuda.is_available() ? torch.cuda.device_count() : 0,
            CudaDriverVersion = CudaDriver.Version(),
            PageFaultSwitch = Core.PageFaultSwitch.Value,
            ThreadSpinning = ThreadWaiting.Value,
        };
    }

    /// <summary>Loads libtorch, or says with the whole report why it cannot be loaded.</summary>
    /// <exception cref="CpuLevelException"><see cref="CpuLevels.Variable"/> names no level.</exception>
    /// <exception cref="LibtorchNotLoadedException">It cannot be loaded.</exception>
    public static void EnsureLibtorch()
    {
        if (_loaded) return;
        NativeRuntime.Initialize();
        if (CpuLevels.Problem() is { } problem) throw new CpuLevelException(CpuLevels.RequestedText()!, problem);
        if (TryLoad() is not null) throw new LibtorchNotLoadedException(Diagnose());
        _loaded = true;
    }

    private static CpuReport Cpu(IReadOnlyList<string> folders) => new()
    {
        Requested = CpuLevels.RequestedText(),
        Problem = CpuLevels.Problem(),
        Hardware = CpuLevels.Hardware,
        Process = CpuLevels.Process,
        VectorBits = CpuFeatures.VectorBits,
        ProcessorHasAvx512 = CpuFeatures.ProcessorHasAvx512,
        Aten = NativeCpuLevel.AtenCapability(folders),
        OneDnn = NativeVariable.Get(NativeCpuLevel.OneDnn),
        Mkl = NativeVariable.Get(NativeCpuLevel.Mkl),
    };

    /// <returns>Null if libtorch is loaded, otherwise why not.</returns>
    private static string? TryLoad()
    {
        // Asked first: TorchSharp itself would copy packages about and write to the console before it gave up.
        try
        {
            NativeLibrary.Load("LibTorchSharp", typeof(torch).Assembly, null);
        }
        catch (Exception e) when (e is DllNotFoundException or BadImageFormatException)
        {
            return "LibTorchSharp does not load: " + (LastFailure() ?? NativeRuntime.LoaderMessage(e));
        }
        try
        {
            using var probe = torch.ones(1);
            return probe.numel() == 1 ? null : "a tensor of one element has another size";
        }
        catch (Exception e) when (e is TypeInitializationException or NotSupportedException or DllNotFoundException
            or EntryPointNotFoundException or ExternalException)
        {
            return "TorchSharp does not start: " + OneLine((e.InnerException ?? e).Message);
        }
    }

    private static string? LastFailure() => NativeRuntime.Attempts.LastOrDefault(a => a.Error is not null)?.Error;

    private static string OneLine(string text) => text.ReplaceLineEndings(" ").Trim();

    private static IEnumerable<string> NativeFilesIn(string folder)
    {
        (string prefix, string suffix) = OperatingSystem.IsWindows() ? ("", ".dll") : OperatingSystem.IsMacOS() ? ("lib", ".dylib") : ("lib", ".so");
        return LibraryNames.Select(name => Path.Combine(folder, prefix + name + suffix)).Where(File.Exists);
    }

    private static NativeFileReport Examine(string file, IReadOnlyList<string> folders)
    {
        string? error = null;
        try
        {
            NativeLibrary.Load(file);
        }
        catch (Exception e) when (e is DllNotFoundException or BadImageFormatException)
        {
            error = NativeRuntime.LoaderMessage(e);
        }
        var missing = error is null ? [] : NativeLibraryInfo.Read(file).Dependencies.Where(name => IsMissing(name, folders)).ToList();
        return new NativeFileReport(file, error, missing);
    }

    private static bool IsMissing(string library, IReadOnlyList<string> folders)
        => !folders.Any(folder => File.Exists(Path.Combine(folder, library))) && !NativeLibrary.TryLoad(library, out _);

    private static List<SystemVersionReport> SystemVersions(IReadOnlyList<NativeFileReport> files)
    {
        var wants = (from file in files
                     from want in NativeLibraryInfo.Read(file.Path).Wants
                     select (File: Path.GetFileName(file.Path), want.Version, want.Library)).ToList();
        var reports = new List<SystemVersionReport>();
        foreach (string family in SystemFamilies)
        {
            var newest = wants.Select(w => (w.File, w.Library, Version: NativeLibraryInfo.Newest([w.Version], family)))
                .Where(w => w.Version is not null).OrderByDescending(w => w.Version).FirstOrDefault();
            if (newest.Version is null) continue;
            string? system = PathOfLoaded(newest.Library);
            var found = system is null ? null : NativeLibraryInfo.Newest(NativeLibraryInfo.Read(system).Defines, family);
            reports.Add(new SystemVersionReport(family, newest.Version, newest.File, found, system));
        }
        return reports;
    }

    /// <summary>Where the loader took a system library from.</summary>
    private static string? PathOfLoaded(string library)
    {
        if (!NativeLibrary.TryLoad(library, out _)) return null;
        try
        {
            // A line of the map: address, rights, offset, device, inode, path.
            return File.ReadLines("/proc/self/maps").Select(line => line[Math.Max(0, line.IndexOf('/', StringComparison.Ordinal))..])
                .FirstOrDefault(path => Path.GetFileName(path).StartsWith(library, StringComparison.Ordinal));
        }
        catch (IOException)
        {
            return null;
        }
    }

    private static string TorchSharpVersion()
    {
        var assembly = typeof(torch).Assembly;
        string? text = assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()?.InformationalVersion;
        return text?.Split('+')[0] ?? assembly.GetName().Version?.ToString() ?? "unknown";
    }

    // A constant of TorchSharp, but behind a type whose initializer loads libtorch; read it as metadata.
    private static string LibtorchWanted()
        => typeof(torch).GetField("libtorchPackageVersion", BindingFlags.NonPublic | BindingFlags.Static)?.GetRawConstantValue() as string ?? "unknown";

    /// <summary>libtorch's own answer: one byte each of major, minor and patch, from the top.</summary>
    private static string? LibtorchFound()
    {
        string name = OperatingSystem.IsWindows() ? "torch_cpu.dll" : OperatingSystem.IsMacOS() ? "libtorch_cpu.dylib" : "libtorch_cpu.so";
        foreach (string folder in NativeRuntime.NativeFolders())
        {
            if (!NativeLibrary.TryLoad(Path.Combine(folder, name), out var handle)) continue;
            if (!NativeLibrary.TryGetExport(handle, "aoti_torch_abi_version", out var function)) continue;
            ulong version = ((delegate* unmanaged<ulong>)function)();
            return $"{version >> 56}.{version >> 48 & 0xff}.{version >> 40 & 0xff}";
        }
        return null;
    }
}
