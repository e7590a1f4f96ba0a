using TorchSharp;
using Xunit;

namespace Peft.Testing;

/// <summary>Fails if tensors outlive the work that made them.</summary>
public static class LeakGuard
{
    /// <summary>Runs a piece of work once to warm up, then several times, and wants the thread's live-tensor count unchanged.</summary>
    public static void AssertFlat(int rounds, Action round)
    {
        ArgumentNullException.ThrowIfNull(round);
        round();                                             // lazily made state is no leak
        long before = DisposeScopeManager.Statistics.TensorStatistics.ThreadTotalLiveCount;
        for (int i = 0; i < rounds; i++) round();
        long after = DisposeScopeManager.Statistics.TensorStatistics.ThreadTotalLiveCount;
        Assert.True(after == before, $"{after - before} tensor(s) outlived {rounds} rounds.");
    }
}
