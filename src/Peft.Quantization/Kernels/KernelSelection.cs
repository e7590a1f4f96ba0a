using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using Peft.Core;
using TorchSharp;

namespace Peft.Quantization;

/// <summary>The one place that chooses the kernels: ask <see cref="Current"/> which run, force others with <see cref="Force"/>.</summary>
public static class KernelSelection
{
    private static readonly IQuantizedKernels Reference = new ReferenceKernels();
    private static readonly Dictionary<KernelLevel, IQuantizedKernels> Simd = Enum.GetValues<KernelLevel>()
        .Where(level => level != KernelLevel.Reference && Supports(level)).ToDictionary(level => level, level => (IQuantizedKernels)new SimdKernels(level));
    private static readonly AsyncLocal<KernelLevel?> Forced = new();

    /// <summary>The levels this machine can run, slowest first.</summary>
    public static IReadOnlyList<KernelLevel> Supported { get; } = [.. Enum.GetValues<KernelLevel>().Where(Supports)];

    /// <summary>The fastest level that the level of the processor in use (<see cref="CpuLevels.Current"/>) allows.</summary>
    public static KernelLevel Best => Supported.Last(level => level <= CpuLevels.Current switch
    {
        CpuLevel.Vector128 => KernelLevel.Vector128,
        CpuLevel.Avx2 => KernelLevel.Avx2,
        _ => KernelLevel.Avx512,
    });

    /// <summary>The level in use for tensors on the CPU: the forced one, else the best. Other devices always use <see cref="KernelLevel.Reference"/>.</summary>
    public static KernelLevel Current => Forced.Value ?? Best;

    /// <summary>Uses a level until the result is disposed, in this flow of control.</summary>
    /// <param name="level">One of <see cref="Supported"/>.</param>
    /// <returns>Restores the level found.</returns>
    /// <exception cref="UnsupportedKernelException">This machine lacks the instructions.</exception>
    public static IDisposable Force(KernelLevel level)
    {
        if (!Supports(level)) throw new UnsupportedKernelException(level, Supported);
        var restore = new Restore(Forced.Value);
        Forced.Value = level;
        return restore;
    }

    internal static IQuantizedKernels For(torch.Device device)
    {
        var level = Current;
        return device.type != DeviceType.CPU || level == KernelLevel.Reference ? Reference : Simd[level];
    }

    private static bool Supports(KernelLevel level) => level switch
    {
        KernelLevel.Reference or KernelLevel.Scalar => true,
        KernelLevel.Vector128 => Vector128.IsHardwareAccelerated,
        KernelLevel.Avx2 => Avx2.IsSupported && Fma.IsSupported,
        KernelLevel.Avx512 => Avx512F.VL.IsSupported && Avx512BW.VL.IsSupported && Avx512DQ.VL.IsSupported,
        _ => false,
    };

    private sealed class Restore(KernelLevel? before) : IDisposable
    {
        public void Dispose() => Forced.Value = before;
    }
}
