namespace Peft.Core;

/// <summary>A kernel over numbered items, which any part of can be done by itself; written once for all widths.</summary>
public interface IVectorLoop
{
    /// <summary>Does items <paramref name="begin"/> to <paramref name="end"/> - 1; calls no torch operator.</summary>
    /// <typeparam name="TVector">Sixteen lanes.</typeparam>
    void Run<TVector>(long begin, long end)
        where TVector : struct, IFloats<TVector>;
}

/// <summary>Runs kernels on libtorch's threads, at the width that suits the level of the processor (<see cref="CpuLevels.Current"/>).</summary>
public static class VectorLoops
{
    /// <summary>Lanes of every vector that a kernel gets.</summary>
    public const int Lanes = 16;

    private static readonly AsyncLocal<VectorWidth?> Forced = new();

    /// <summary>The width in use: the forced one, else that of the level in use.</summary>
    public static VectorWidth Width => Forced.Value ?? CpuLevels.Current switch
    {
        CpuLevel.Vector128 => VectorWidth.Bits128,
        CpuLevel.Avx2 => VectorWidth.Bits256,
        _ => VectorWidth.Bits512,
    };

    /// <summary>
    /// Uses a width until the result is disposed, in this flow of control: any of them, as .NET computes a wider vector than the processor
    /// has in halves. The results are the same bits at each; this is how tests show it.
    /// </summary>
    /// <param name="width">The width.</param>
    /// <returns>Restores the width found.</returns>
    public static IDisposable ForceWidth(VectorWidth width)
    {
        var before = Forced.Value;
        Forced.Value = width;
        return new AdapterScope(() => Forced.Value = before);
    }

    /// <summary>Runs a kernel over <paramref name="count"/> items.</summary>
    /// <param name="loop">The kernel.</param>
    /// <param name="count">How many items.</param>
    /// <param name="grain">Ranges start at multiples of this; fewer items than this run on the calling thread.</param>
    public static void Run<TLoop>(TLoop loop, long count, long grain)
        where TLoop : struct, IVectorLoop
    {
        switch (Width)
        {
            case VectorWidth.Bits512: CpuParallel.For(count, grain, loop.Run<Floats512>); break;
            case VectorWidth.Bits256: CpuParallel.For(count, grain, loop.Run<FloatPair<Floats256>>); break;
            default: CpuParallel.For(count, grain, loop.Run<FloatPair<FloatPair<Floats128>>>); break;
        }
    }
}
