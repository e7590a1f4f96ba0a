namespace Peft.Quantization;

/// <summary>The factor by which integer products become floating point again.</summary>
public enum Int8Rescaling
{
    /// <summary>1 / 127².</summary>
    Exact,

    /// <summary>6.200124e-05, as bitsandbytes' CPU code has it: results are 1.8e-5 (relative) larger. For repeating its figures.</summary>
    BitsandbytesCpu,

    /// <summary>6.200012e-05, as bitsandbytes' GPU kernels have it.</summary>
    BitsandbytesGpu,
}
