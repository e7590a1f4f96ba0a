using System.Runtime.InteropServices;

namespace Peft.Core;

/// <summary>
/// Hands a level that <see cref="CpuLevels.Variable"/> asks for on to libtorch and its libraries, which read variables of their own once, while they
/// load. .NET reads its width before any of this code runs: the launcher sets <c>DOTNET_EnableAVX512=0</c> or <c>DOTNET_EnableAVX2=0</c>.
/// </summary>
internal static unsafe class NativeCpuLevel
{
    /// <summary>ATen's own kernels.</summary>
    public const string Aten = "ATEN_CPU_CAPABILITY";

    /// <summary>oneDNN: products in bfloat16 and float16, convolutions.</summary>
    public const string OneDnn = "ONEDNN_MAX_CPU_ISA";

    /// <summary>MKL: products in float32.</summary>
    public const string Mkl = "MKL_ENABLE_INSTRUCTIONS";

    // ATen takes what it is told, even if the processor lacks it: only levels that this process can run reach this table.
    private static readonly Dictionary<CpuLevel, (string Aten, string OneDnn, string Mkl)> Values = new()
    {
        [CpuLevel.Vector128] = ("default", "SSE41", "SSE4_2"),
        [CpuLevel.Avx2] = ("avx2", "AVX2", "AVX2"),
        [CpuLevel.Avx512] = ("avx512", "AVX512_CORE", "AVX512"),
    };

    /// <summary>Sets the variables that lower the libraries to the level of the process, unless the user has set them. Does nothing off Linux, or where nothing is asked for.</summary>
    public static void Apply()
    {
        if (CpuLevels.Requested() is null || !Values.TryGetValue(CpuLevels.Process, out var names)) return;
        NativeVariable.SetUnlessSet(Aten, names.Aten);
        NativeVariable.SetUnlessSet(OneDnn, names.OneDnn);
        NativeVariable.SetUnlessSet(Mkl, names.Mkl);
    }

    /// <summary>The level that the loaded libtorch says its own kernels use, e.g. <c>AVX2</c>; null if none is loaded or it cannot be asked here.</summary>
    public static string? AtenCapability(IEnumerable<string> folders)
    {
        // std::string at::get_cpu_capability(): its result lies where the first argument points on this platform alone.
        if (!OperatingSystem.IsLinux() || RuntimeInformation.ProcessArchitecture != Architecture.X64) return null;
        string? library = folders.Select(folder => Path.Combine(folder, "libtorch_cpu.so")).FirstOrDefault(File.Exists);
        if (library is null || !NativeLibrary.TryLoad(library, out var handle)) return null;
        if (!NativeLibrary.TryGetExport(handle, "_ZN2at18get_cpu_capabilityB5cxx11Ev", out var function)) return null;
        byte** text = stackalloc byte*[4];
        ((delegate* unmanaged<byte**, byte**>)function)(text);
        // Pointer, length, and up to 15 letters in place: the names are shorter.
        return Marshal.PtrToStringUTF8((nint)text[0], (int)(nint)text[1]);
    }
}
