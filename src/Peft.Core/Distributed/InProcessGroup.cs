using System.Runtime.ExceptionServices;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>
/// A group whose members are threads of this process, each with a model of its own: one thread per device, or several on the CPU for tests. Sums
/// run in the order of ranks, so all members get the same bits.
/// </summary>
public sealed class InProcessGroup : IProcessGroup
{
    private readonly Meeting _meeting;

    private InProcessGroup(int rank, Meeting meeting) => (Rank, _meeting) = (rank, meeting);

    /// <inheritdoc/>
    public int Rank { get; }

    /// <inheritdoc/>
    public int WorldSize => _meeting.Size;

    /// <summary>
    /// Runs a body on a thread for each member and waits for all. When one fails, the others end at their next operation of the group. torch's
    /// generator is as it was afterwards.
    /// </summary>
    /// <param name="size">Members.</param>
    /// <param name="body">What each does; it gets its own member.</param>
    /// <returns>The results by rank.</returns>
    /// <exception cref="ArgumentOutOfRangeException">The size is not positive.</exception>
    public static IReadOnlyList<T> Run<T>(int size, Func<IProcessGroup, T> body)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(size);
        ArgumentNullException.ThrowIfNull(body);
        using var meeting = new Meeting(size);
        using var random = get_rng_state();
        var results = new T[size];
        var faults = new List<Exception>();
        var threads = Enumerable.Range(0, size).Select(rank => new Thread(() =>
        {
            try
            {
                results[rank] = body(new InProcessGroup(rank, meeting));
            }
            catch (Exception e)
            {
                lock (faults) faults.Add(e);
                meeting.Abort();
            }
        })).ToList();
        threads.ForEach(t => t.Start());
        threads.ForEach(t => t.Join());
        set_rng_state(random);
        // The cause, before those that only heard of it.
        var cause = faults.Find(f => f is not ProcessGroupException) ?? faults.FirstOrDefault();
        if (cause is not null) ExceptionDispatchInfo.Throw(cause);
        return results;
    }

    /// <inheritdoc/>
    /// <exception cref="ProcessGroupException">Another member has failed.</exception>
    public void AllReduceSum(Tensor tensor)
    {
        ArgumentNullException.ThrowIfNull(tensor);
        using var noGrad = no_grad();
        using var scope = NewDisposeScope();
        var sum = Exchange(tensor, all => Sum(all.Select(t => (Tensor)t), tensor.device), "a sum");
        tensor.copy_(sum);
    }

    /// <inheritdoc/>
    /// <exception cref="ProcessGroupException">Another member has failed.</exception>
    public IReadOnlyList<Tensor> AllGather(Tensor tensor)
    {
        ArgumentNullException.ThrowIfNull(tensor);
        using var noGrad = no_grad();
        return Exchange<IReadOnlyList<Tensor>>(tensor, all => [.. all.Select(t => ((Tensor)t).to(tensor.device, copy: true).DetachFromDisposeScope())], "a collection");
    }

    /// <inheritdoc/>
    /// <exception cref="ProcessGroupException">Another member has failed.</exception>
    public void Broadcast(Tensor tensor, int source)
    {
        ArgumentNullException.ThrowIfNull(tensor);
        ArgumentOutOfRangeException.ThrowIfNegative(source);
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(source, WorldSize);
        using var noGrad = no_grad();
        Exchange(tensor, all => Rank == source ? tensor : tensor.copy_((Tensor)all[source]), "a broadcast");
    }

    /// <inheritdoc/>
    /// <exception cref="ProcessGroupException">Another member has failed.</exception>
    public Tensor ReduceScatterSum(IReadOnlyList<Tensor> tensors)
    {
        ArgumentNullException.ThrowIfNull(tensors);
        ArgumentOutOfRangeException.ThrowIfNotEqual(tensors.Count, WorldSize, nameof(tensors));
        using var noGrad = no_grad();
        return Exchange(tensors, all => Sum(all.Select(t => ((IReadOnlyList<Tensor>)t)[Rank]), tensors[Rank].device).DetachFromDisposeScope(), "a sum of slices");
    }

    /// <inheritdoc/>
    /// <exception cref="ProcessGroupException">Another member has failed.</exception>
    public void Barrier() => _meeting.Wait(Rank, "a barrier");

    private static Tensor Sum(IEnumerable<Tensor> tensors, Device device)
    {
        Tensor? sum = null;
        foreach (var tensor in tensors)
        {
            if (sum is null) sum = tensor.to(device, copy: true);
            else sum.add_(tensor.to(device));
        }
        return sum!;
    }

    /// <summary>Shows what this member brings, works on what all brought, and waits until all have worked.</summary>
    private T Exchange<T>(object own, Func<object[], T> work, string what)
    {
        _meeting.Slots[Rank] = own;
        _meeting.Wait(Rank, what);
        var result = work(_meeting.Slots);
        _meeting.Wait(Rank, what);
        return result;
    }

    private sealed class Meeting(int size) : IDisposable
    {
        private readonly Barrier _barrier = new(size);
        private readonly CancellationTokenSource _aborted = new();

        public int Size => size;

        public object[] Slots { get; } = new object[size];

        public void Abort() => _aborted.Cancel();

        public void Wait(int rank, string what)
        {
            try
            {
                _barrier.SignalAndWait(_aborted.Token);
            }
            catch (OperationCanceledException)
            {
                throw new ProcessGroupException(rank, what);
            }
        }

        public void Dispose()
        {
            _barrier.Dispose();
            _aborted.Dispose();
        }
    }
}
