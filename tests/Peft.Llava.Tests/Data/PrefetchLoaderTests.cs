using Xunit;

namespace Peft.Llava.Tests.Data;

public sealed class PrefetchLoaderTests
{
    private sealed class Item(int index, Action<int>? onDispose = null) : IDisposable
    {
        public int Index { get; } = index;

        public void Dispose() => onDispose?.Invoke(Index);
    }

    [Theory]
    [InlineData(1, 1)]
    [InlineData(4, 3)]
    [InlineData(3, 16)]
    public void Order_is_the_one_asked_for_whatever_the_workers(int workers, int ahead)
    {
        var items = PrefetchLoader.InOrder(23, (i, _) =>
        {
            Thread.Sleep((23 - i) % 5);                      // later ones are often ready first
            return new Item(i);
        }, new PrefetchOptions { Workers = workers, BatchesAhead = ahead });
        Assert.Equal(Enumerable.Range(0, 23), items.Select(i => i.Index));
    }

    [Fact]
    public void No_more_than_the_bound_is_made_ahead_and_no_more_than_the_workers_at_once()
    {
        int begun = 0, running = 0, most = 0;
        var items = PrefetchLoader.InOrder(40, (i, _) =>
        {
            Interlocked.Increment(ref begun);
            int now = Interlocked.Increment(ref running);
            lock (this) most = Math.Max(most, now);
            Thread.Sleep(1);
            Interlocked.Decrement(ref running);
            return new Item(i);
        }, new PrefetchOptions { Workers = 2, BatchesAhead = 5 });
        int taken = 0;
        foreach (var item in items)
        {
            taken++;
            Assert.True(Volatile.Read(ref begun) <= taken + 5, $"{begun} begun, {taken} taken");
        }
        Assert.Equal(40, taken);
        Assert.True(most <= 2);
    }

    [Fact]
    public void A_workers_exception_comes_where_its_item_was_due_and_the_rest_is_disposed()
    {
        var disposed = new List<int>();
        var got = new List<int>();
        var e = Assert.Throws<SampleException>(() =>
        {
            foreach (var item in PrefetchLoader.InOrder(10, Make, new PrefetchOptions { Workers = 2, BatchesAhead = 4 })) got.Add(item.Index);
        });
        Assert.Contains("'s3'", e.Message);
        Assert.Equal([0, 1, 2], got);
        Assert.All(disposed, i => Assert.InRange(i, 4, 6));

        Item Make(int i, CancellationToken token) => i == 3
            ? throw new SampleException(SampleProblem.BadImage, TinyData.Sample(3, "q", "a"), "is bad.", "Fix it.")
            : new Item(i, n => { lock (disposed) disposed.Add(n); });
    }

    [Fact]
    public void Stopping_early_disposes_what_was_made_ahead()
    {
        int made = 0, disposed = 0;
        foreach (var item in PrefetchLoader.InOrder(100, (i, _) =>
        {
            Interlocked.Increment(ref made);
            return new Item(i, _ => Interlocked.Increment(ref disposed));
        }, new PrefetchOptions { Workers = 2, BatchesAhead = 4 }))
        {
            item.Dispose();
            if (item.Index == 5) break;
        }
        Assert.Equal(made, disposed);
        Assert.InRange(made, 6, 10);
    }

    [Fact]
    public void Cancelling_stops_the_work()
    {
        using var source = new CancellationTokenSource();
        Assert.ThrowsAny<OperationCanceledException>(() =>
        {
            foreach (var item in PrefetchLoader.InOrder(1000, (i, _) => new Item(i), new PrefetchOptions { Workers = 1 }, source.Token))
                if (item.Index == 2) source.Cancel();
        });
    }

    [Fact]
    public void Refuses_no_workers()
        => Assert.StartsWith("options ('0') must be a non-negative and non-zero value.", Assert.Throws<ArgumentOutOfRangeException>(() => PrefetchLoader.InOrder(1, (i, _) => new Item(i), new PrefetchOptions { Workers = 0 })).Message);
}
