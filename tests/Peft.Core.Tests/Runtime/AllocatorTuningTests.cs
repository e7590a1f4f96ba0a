using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

public sealed class AllocatorTuningTests
{
    [Fact]
    public void Free_memory_between_blocks_in_use_is_returned_where_its_return_is_cheap_and_no_content_changes()
    {
        Assert.SkipUnless(AllocatorTuning.IsOn, "glibc on Linux, with the tuning on");
        AllocatorTuning.Release();
        using var scope = NewDisposeScope();
        // Blocks in use between freed ones, so that the freed ones are holes of the heap and not its end.
        var holes = Enumerable.Range(0, 70).Select(i => (Hole: full([1_000_003], i, dtype: ScalarType.Float32), Kept: full([10_007], i + 0.5f, dtype: ScalarType.Float32))).ToList();
        foreach (var (hole, _) in holes) hole.Dispose();
        long before = ResidentKilobytes.Anonymous;

        Assert.False(AllocatorTuning.ReleaseWhereCheap(TimeSpan.FromSeconds(0.5)), "280 MB were returned after half a second");
        Assert.InRange(ResidentKilobytes.Anonymous, before - 100_000, before + 100_000);
        Assert.True(AllocatorTuning.ReleaseWhereCheap(TimeSpan.FromHours(1)), "nothing was returned");
        Assert.True(before - ResidentKilobytes.Anonymous > 200_000, "the freed blocks are still resident");
        Assert.False(AllocatorTuning.ReleaseWhereCheap(TimeSpan.FromHours(1)), "little was left, and it was returned");
        for (int i = 0; i < holes.Count; i++)
            Assert.True(holes[i].Kept.eq(i + 0.5f).all().ToBoolean(), $"block {i} has changed");
    }
}
