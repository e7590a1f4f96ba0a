using Peft.Core;

namespace Peft.Quantization;

/// <summary>A kernel level was forced that this machine cannot run.</summary>
public sealed class UnsupportedKernelException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="level">The level asked for.</param>
    /// <param name="supported">Those the machine has.</param>
    public UnsupportedKernelException(KernelLevel level, IReadOnlyList<KernelLevel> supported)
        : base($"Kernel level {level} needs instructions that this machine lacks; it can run {string.Join(", ", supported)}. Force one of these, or none.")
    {
        Level = level;
    }

    /// <summary>The level asked for.</summary>
    public KernelLevel Level { get; }
}
