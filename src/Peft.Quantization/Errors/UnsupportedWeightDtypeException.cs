using Peft.Core;
using static TorchSharp.torch;

namespace Peft.Quantization;

/// <summary>A dtype that cannot be quantised from or computed in.</summary>
public sealed class UnsupportedWeightDtypeException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="dtype">The dtype.</param>
    public UnsupportedWeightDtypeException(ScalarType dtype)
        : base($"dtype {dtype} cannot be quantised from or computed in; use Float32, BFloat16 or Float16 (cast with .to(dtype) first).")
    {
        Dtype = dtype;
    }

    /// <summary>The dtype.</summary>
    public ScalarType Dtype { get; }
}
