using System.Runtime.Intrinsics.Arm;
using System.Runtime.Intrinsics.X86;

namespace Peft.Core;

/// <summary>The vector instructions that matter for matrix products and 4-bit decoding.</summary>
internal static class CpuFeatures
{
    /// <summary>The names of those this process can use, e.g. <c>Avx2</c>, <c>Avx512F</c>, <c>Avx512Bf16</c>.</summary>
    public static IReadOnlyList<string> Detect()
    {
        var found = new List<string>();
        void Add(bool supported, string name)
        {
            if (supported) found.Add(name);
        }

        Add(Avx2.IsSupported, nameof(Avx2));
        Add(Fma.IsSupported, nameof(Fma));
        Add(Avx512F.IsSupported, nameof(Avx512F));
        Add(Avx512BW.IsSupported, nameof(Avx512BW));
        Add(Avx512Vbmi.IsSupported, nameof(Avx512Vbmi));
        if (X86Base.IsSupported && X86Base.CpuId(0, 0).Eax >= 7)
        {
            // No class of their own in .NET, but libtorch's bf16 and int8 products use them.
            var leaf = X86Base.CpuId(7, 0);
            Add(Avx512F.IsSupported && Bit(leaf.Ecx, 11), "Avx512Vnni");
            if (leaf.Eax >= 1) Add(Avx512F.IsSupported && Bit(X86Base.CpuId(7, 1).Eax, 5), "Avx512Bf16");
            Add(Bit(leaf.Edx, 22), "AmxBf16");
            Add(Bit(leaf.Edx, 25), "AmxInt8");
        }
        Add(AdvSimd.IsSupported, nameof(AdvSimd));
        Add(Dp.IsSupported, nameof(Dp));
        return found;
    }

    /// <summary>Whether the processor multiplies bfloat16 in one instruction (AVX512-BF16 or AMX-BF16).</summary>
    public static bool HasBFloat16Products => Detect() is var found && (found.Contains("Avx512Bf16") || found.Contains("AmxBf16"));

    /// <summary>Bits of the widest vectors that .NET uses in this process.</summary>
    public static int VectorBits => Avx512F.IsSupported ? 512 : Avx2.IsSupported ? 256 : 128;

    /// <summary>Whether the processor itself has AVX-512, whether .NET may use it or not.</summary>
    public static bool ProcessorHasAvx512 => X86Base.IsSupported && X86Base.CpuId(0, 0).Eax >= 7 && Bit(X86Base.CpuId(7, 0).Ebx, 16);

    private static bool Bit(int value, int bit) => (value >> bit & 1) != 0;
}
