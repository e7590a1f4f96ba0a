using System.Runtime.InteropServices;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>Access to a CPU tensor's memory, for kernels.</summary>
public static unsafe class CpuTensor
{
    /// <summary>True if a kernel of these packages can work on the tensor: on the CPU, contiguous, float32 or bfloat16.</summary>
    /// <param name="tensor">The tensor.</param>
    public static bool IsKernelReady(Tensor tensor)
    {
        ArgumentNullException.ThrowIfNull(tensor);
        return tensor.device_type == TorchSharp.DeviceType.CPU && tensor.is_contiguous()
            && tensor.dtype is ScalarType.Float32 or ScalarType.BFloat16;
    }

    /// <summary>The address of a tensor's first element; valid while the tensor lives.</summary>
    /// <param name="tensor">A contiguous tensor on the CPU.</param>
    /// <returns>Null for an empty tensor.</returns>
    /// <exception cref="ArgumentException">The tensor is elsewhere or not contiguous.</exception>
    public static void* Pointer(Tensor tensor)
    {
        ArgumentNullException.ThrowIfNull(tensor);
        if (tensor.device_type != TorchSharp.DeviceType.CPU || !tensor.is_contiguous())
            throw new ArgumentException($"A kernel needs a contiguous tensor on the CPU, got one on {tensor.device} with strides "
                + $"({string.Join(", ", tensor.stride())}) for shape ({string.Join(", ", tensor.shape)}). Call cpu().contiguous() first.", nameof(tensor));
        return tensor.numel() == 0 ? null : (void*)tensor_data(tensor.Handle);
    }

    [DllImport("LibTorchSharp", EntryPoint = "THSTensor_data")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories | DllImportSearchPath.AssemblyDirectory)]
    private static extern IntPtr tensor_data(IntPtr handle);
}
