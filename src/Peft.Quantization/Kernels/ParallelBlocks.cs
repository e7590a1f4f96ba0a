using Peft.Core;

namespace Peft.Quantization;

/// <summary>A piece of work over numbered blocks that can be done in any order.</summary>
internal interface IBlockJob
{
    /// <summary>Does blocks <paramref name="first"/> to <paramref name="end"/> - 1; calls no torch operator.</summary>
    void Run(long first, long end);
}

/// <summary>Runs a job over blocks on libtorch's threads.</summary>
internal static class ParallelBlocks
{
    /// <summary>Fewer values than this are not worth a second thread.</summary>
    private const long Grain = 1 << 15;

    public static void Run<TJob>(TJob job, long blocks, long valuesPerBlock)
        where TJob : struct, IBlockJob
        => CpuParallel.For(blocks, Math.Max(1, Grain / Math.Max(1, valuesPerBlock)), job.Run);
}
