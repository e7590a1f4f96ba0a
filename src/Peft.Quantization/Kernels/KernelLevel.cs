namespace Peft.Quantization;

/// <summary>How the quantisation kernels compute on the CPU.</summary>
public enum KernelLevel
{
    /// <summary>Plain tensor operations of libtorch, on any device: the reference that the others equal.</summary>
    Reference,

    /// <summary>C#, one value at a time.</summary>
    Scalar,

    /// <summary>C#, 128-bit vectors: AdvSimd on ARM, SSE4.1 on x86.</summary>
    Vector128,

    /// <summary>C#, 256-bit vectors: AVX2 with FMA.</summary>
    Avx2,

    /// <summary>C#, 512-bit vectors: AVX-512 F, BW and VL.</summary>
    Avx512,
}
