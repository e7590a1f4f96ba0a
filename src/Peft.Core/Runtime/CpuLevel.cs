namespace Peft.Core;

/// <summary>What a processor offers to matrix products and kernels, each level with all of those before it.</summary>
public enum CpuLevel
{
    /// <summary>128-bit vectors: SSE4.1 on x86, AdvSimd on ARM.</summary>
    Vector128,

    /// <summary>256-bit vectors: AVX2 with FMA. Laptops and desktops (Intel since Haswell, AMD up to Zen 3) and many cloud machines.</summary>
    Avx2,

    /// <summary>512-bit vectors: AVX-512 F, BW, DQ and VL, but no instruction for bfloat16 products.</summary>
    Avx512,

    /// <summary>AVX-512 with bfloat16 products (AVX512-BF16 or AMX-BF16): Intel since Cooper Lake and Sapphire Rapids, AMD since Zen 4.</summary>
    Avx512Bf16,
}
