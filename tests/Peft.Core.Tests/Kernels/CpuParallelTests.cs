using Xunit;

namespace Peft.Core.Tests;

public sealed class CpuParallelTests
{
    [Theory]
    [InlineData(0, 1), InlineData(1, 1), InlineData(7, 3), InlineData(1000, 1), InlineData(1001, 64), InlineData(65, 64)]
    public void Every_item_is_visited_once_in_ranges_that_start_at_the_grain(long count, long grain)
    {
        var visits = new int[count];
        CpuParallel.For(count, grain, (begin, end) =>
        {
            Assert.Equal(0, begin % grain);
            for (long i = begin; i < end; i++) Interlocked.Increment(ref visits[i]);
        });
        Assert.All(visits, v => Assert.Equal(1, v));
    }

    [Fact]
    public void A_failure_in_one_range_reaches_the_caller()
    {
        var e = Assert.Throws<InvalidOperationException>(() => CpuParallel.For(1000, 1, (begin, _) =>
        {
            if (begin == 0) throw new InvalidOperationException("range at 0");
        }));
        Assert.Equal("range at 0", e.Message);
    }

    [Fact]
    public void Failures_in_several_ranges_reach_the_caller_together()
    {
        if (Environment.ProcessorCount == 1) Assert.Skip("needs two ranges");
        var e = Assert.Throws<AggregateException>(() => CpuParallel.For(1000, 1, (begin, _) => throw new InvalidOperationException($"range at {begin}")));
        Assert.True(e.InnerExceptions.Count > 1);
        Assert.Contains("range at 0", e.Message, StringComparison.Ordinal);
        Assert.Contains($"range at {1000 / e.InnerExceptions.Count}", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void On_Linux_the_kernels_run_on_the_threads_of_libtorch()
        => Assert.Equal(OperatingSystem.IsLinux() ? "OpenMP" : "ThreadPool", CpuParallel.Backend);
}
