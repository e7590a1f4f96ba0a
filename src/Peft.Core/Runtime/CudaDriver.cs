using System.Runtime.InteropServices;

namespace Peft.Core;

/// <summary>Asks the CUDA driver for its version, whether or not libtorch can use it.</summary>
internal static unsafe class CudaDriver
{
    /// <summary>The newest CUDA version the installed driver serves; null without a driver.</summary>
    public static Version? Version()
    {
        string library = OperatingSystem.IsWindows() ? "nvcuda.dll" : "libcuda.so.1";
        if (!NativeLibrary.TryLoad(library, out var handle)) return null;
        try
        {
            if (!NativeLibrary.TryGetExport(handle, "cuDriverGetVersion", out var function)) return null;
            int version = 0;
            int status = ((delegate* unmanaged<int*, int>)function)(&version);
            return status == 0 ? new Version(version / 1000, version % 1000 / 10) : null;
        }
        finally
        {
            NativeLibrary.Free(handle);
        }
    }
}
