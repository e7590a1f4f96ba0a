using Peft.Core;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>Says where the dtype of a model costs speed on this processor, and which one does not.</summary>
internal static class DtypeAdvice
{
    /// <returns>One sentence with the next step; null where the dtype is no slower than another.</returns>
    public static string? For(ScalarType dtype, Device device)
    {
        if (device.type != DeviceType.CPU) return null;
        string level = CpuLevels.NameOf(CpuLevels.Current);
        return dtype switch
        {
            ScalarType.Float16 => $"The model is in float16, whose products are slow on every CPU (level {level}): load it as {Best}",
            ScalarType.BFloat16 when IsSlow(ScalarType.BFloat16)
                => $"The model is in bfloat16, for which this processor has no instructions (level {level}), and products run on {ProductEngine.Libtorch}: load it as Float32",
            _ => null,
        };
    }

    private static string Best => IsSlow(ScalarType.BFloat16) ? "Float32" : "BFloat16 (as fast as Float32 or faster, in half the memory)";

    private static bool IsSlow(ScalarType dtype) => CpuLevels.Current < CpuLevel.Avx512Bf16 && ProductChoice.For(dtype) == ProductEngine.Libtorch;
}
