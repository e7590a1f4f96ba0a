using System.Runtime.InteropServices;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>The memory of tensors that are mapped from a file and have been read for the last time.</summary>
public static class MappedPages
{
    private const int PageBytes = 4096;
    private const int DontNeed = 4;         // MADV_DONTNEED

    /// <summary>
    /// Gives a tensor's pages back to the system, so that they no longer count as resident: after a weight was quantised or converted, the
    /// file's own pages are of no more use, but stay in memory as long as any tensor of the same file is mapped.
    /// </summary>
    /// <param name="tensor">
    /// A contiguous tensor on the CPU that is about to be disposed and that nobody has written to. A mapped one would be read from its file again;
    /// the content of another one is lost.
    /// </param>
    public static unsafe void Release(Tensor tensor)
    {
        ArgumentNullException.ThrowIfNull(tensor);
        if (!OperatingSystem.IsLinux() || tensor.device_type != TorchSharp.DeviceType.CPU || !tensor.is_contiguous() || tensor.numel() == 0) return;
        ulong begin = (ulong)CpuTensor.Pointer(tensor), end = begin + (ulong)(tensor.numel() * tensor.element_size());
        ulong first = (begin + PageBytes - 1) / PageBytes * PageBytes, last = end / PageBytes * PageBytes;
        // Advice only: where the system has larger pages or refuses, the memory stays resident.
        if (last > first) _ = Advise((void*)first, (nuint)(last - first), DontNeed);
    }

    [DllImport("libc", EntryPoint = "madvise")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern unsafe int Advise(void* address, nuint length, int advice);
}
