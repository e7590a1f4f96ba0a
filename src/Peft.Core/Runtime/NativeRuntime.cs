using System.Reflection;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Loader;

namespace Peft.Core;

/// <summary>
/// Makes libtorch load, and load with its page-fault switch on, before TorchSharp is first used.
/// </summary>
/// <remarks>
/// TorchSharp's Linux library asks for a symbol of libstdc++ 13 (<c>GLIBCXX_3.4.32</c>). On a system with an older one
/// (Debian 12, Ubuntu 22.04, RHEL 9) the loader refuses it; then an edited copy is made in the user's cache folder and loaded
/// (<see cref="LibstdcxxCompatibility"/>). On every other system nothing is changed.
/// <para>The package adds a module initializer to the application that calls <see cref="Initialize"/>, so no step is the user's.</para>
/// </remarks>
public static class NativeRuntime
{
    private const string TorchSharpLibrary = "LibTorchSharp";
    private static readonly Lock Gate = new();
    private static readonly List<NativeLoadAttempt> Attempted = [];
    private static bool _initialized;

    /// <summary>Every native file this class tried to load, in order, with the loader's error if it failed.</summary>
    public static IReadOnlyList<NativeLoadAttempt> Attempts
    {
        get { lock (Gate) return [.. Attempted]; }
    }

    /// <summary>
    /// Prepares the process for libtorch: sets the page-fault switch, bounds the threads' spinning, hands on a level of the processor that
    /// <see cref="CpuLevels.Variable"/> asks for, and stands by for a library that does not load.
    /// Idempotent and cheap; never throws and loads nothing by itself.
    /// </summary>
#pragma warning disable CA2255 // A library may not need module initializers in general; this one must precede TorchSharp's first call.
    [ModuleInitializer]
#pragma warning restore CA2255
    public static void Initialize()
    {
        lock (Gate)
        {
            if (_initialized) return;
            _initialized = true;
        }
        PageFaultSwitch.TurnOn();
        ThreadWaiting.Bound();
        AllocatorTuning.TurnOn();
        NativeCpuLevel.Apply();
        if (OperatingSystem.IsLinux())
            AssemblyLoadContext.Default.ResolvingUnmanagedDll += Resolve;
    }

    /// <summary>Called by the runtime when its own search found no loadable library of this name.</summary>
    private static IntPtr Resolve(Assembly assembly, string name)
    {
        if (name != TorchSharpLibrary) return IntPtr.Zero;
        lock (Gate)
        {
            foreach (string folder in NativeFolders())
            {
                string file = Path.Combine(folder, "libLibTorchSharp.so");
                if (!File.Exists(file)) continue;
                foreach (string dependency in new[] { "libc10.so", "libtorch_cpu.so", "libtorch_cuda.so", "libtorch.so" })
                {
                    string path = Path.Combine(folder, dependency);
                    if (File.Exists(path)) TryLoad(path);
                }
                if (TryLoad(file) is { } handle) return handle;
                if (TryLoadEdited(file) is { } edited) return edited;
            }
            return IntPtr.Zero;
        }
    }

    private static IntPtr? TryLoadEdited(string file)
    {
        try
        {
            if (LibstdcxxCompatibility.MakeLoadableCopy(file) is not { } copy) return null;
            var handle = TryLoad(copy.Path);
            if (copy.IsTemporary) Directory.Delete(Path.GetDirectoryName(copy.Path)!, recursive: true);   // stays mapped
            return handle;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            Attempted.Add(new NativeLoadAttempt(file, $"an edited copy for this libstdc++ could not be written: {e.Message}"));
            return null;
        }
    }

    private static IntPtr? TryLoad(string path)
    {
        try
        {
            IntPtr handle = NativeLibrary.Load(path);
            Attempted.Add(new NativeLoadAttempt(path, null));
            return handle;
        }
        catch (Exception e) when (e is DllNotFoundException or BadImageFormatException)
        {
            Attempted.Add(new NativeLoadAttempt(path, LoaderMessage(e)));
            return null;
        }
    }

    /// <summary>The loader's own words out of .NET's message, which opens with a paragraph of advice and repeats itself for every name tried.</summary>
    internal static string LoaderMessage(Exception error)
    {
        var lines = error.Message.Split('\n', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries);
        var own = lines.Skip(1).Distinct().ToList();
        return own.Count == 0 ? error.Message.Trim() : string.Join("; ", own);
    }

    /// <summary>Folders that can hold the application's native files: those of the host, then those beside the application.</summary>
    internal static IEnumerable<string> NativeFolders()
    {
        var folders = new List<string>();
        if (AppContext.GetData("NATIVE_DLL_SEARCH_DIRECTORIES") is string listed)
            folders.AddRange(listed.Split(Path.PathSeparator, StringSplitOptions.RemoveEmptyEntries));
        folders.Add(Path.Combine(AppContext.BaseDirectory, "runtimes", RuntimeInformation.RuntimeIdentifier, "native"));
        folders.Add(Path.Combine(AppContext.BaseDirectory, "runtimes", PortableRuntimeIdentifier, "native"));
        folders.Add(AppContext.BaseDirectory);
        return folders.Select(f => f.TrimEnd(Path.DirectorySeparatorChar)).Distinct().Where(Directory.Exists);
    }

    internal static string PortableRuntimeIdentifier
    {
        get
        {
            string os = OperatingSystem.IsWindows() ? "win" : OperatingSystem.IsMacOS() ? "osx" : "linux";
#pragma warning disable CA1308 // runtime identifiers are lower case
            return os + "-" + RuntimeInformation.ProcessArchitecture.ToString().ToLowerInvariant();
#pragma warning restore CA1308
        }
    }
}

/// <summary>One native file that was tried.</summary>
/// <param name="Path">The file.</param>
/// <param name="Error">The loader's message, or null if it loaded.</param>
public sealed record NativeLoadAttempt(string Path, string? Error);
