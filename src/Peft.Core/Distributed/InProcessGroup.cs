using System.Runtime.ExceptionServices;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>
/// A group whose members are threads of this process, each with a model of its own: one thread per device, or several on the CPU for tests. Sums
/// run in the order of ranks, so all members get the same bits. Members that call different operations, or with tensors of different shapes or dtypes, are told so.
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
    /// <exception cref="ProcessGroupException">Another member has failed, or does something else.</exception>
    public void AllReduceSum(Tensor tensor)
    {
        ArgumentNullException.ThrowIfNull(tensor);
        using var noGrad = no_grad();
        using var scope = NewDisposeScope();
        var sum = Exchange([tensor], all => Sum(all.Select(t => t[0]), tensor.device), "a sum");
        tensor.copy_(sum);
    }

    /// <inheritdoc/>
    /// <exception cref="ProcessGroupException">Another member has failed, or does something else.</exception>
    public IReadOnlyList<Tensor> AllGather(Tensor tensor)
    {
        ArgumentNullException.ThrowIfNull(tensor);
        using var noGrad = no_grad();
        return Exchange<IReadOnlyList<Tensor>>([tensor], all => [.. all.Select(t => t[0].to(tensor.device, copy: true).DetachFromDisposeScope())], "a collection");
    }

    /// <inheritdoc/>
    /// <exception cref="ProcessGroupException">Another member has failed, or does something else.</exception>
    public void Broadcast(Tensor tensor, int source)
    {
        ArgumentNullException.ThrowIfNull(tensor);
        ArgumentOutOfRangeException.ThrowIfNegative(source);
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(source, WorldSize);
        using var noGrad = no_grad();
        Exchange([tensor], all => Rank == source ? tensor : tensor.copy_(all[source][0]), $"a broadcast from {source}");
    }

    /// <inheritdoc/>
    /// <exception cref="ProcessGroupException">Another member has failed, or does something else.</exception>
    public Tensor ReduceScatterSum(IReadOnlyList<Tensor> tensors)
    {
        ArgumentNullException.ThrowIfNull(tensors);
        ArgumentOutOfRangeException.ThrowIfNotEqual(tensors.Count, WorldSize, nameof(tensors));
        using var noGrad = no_grad();
        return Exchange(tensors, all => Sum(all.Select(t => t[Rank]), tensors[Rank].device).DetachFromDisposeScope(), "a sum of slices");
    }

    /// <inheritdoc/>
    /// <exception cref="ProcessGroupException">Another member has failed, or does something else.</exception>
    public void Barrier() => Exchange([], _ => 0, "a barrier");

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
    private T Exchange<T>(IReadOnlyList<Tensor> own, Func<IReadOnlyList<Tensor>[], T> work, string what)
    {
        _meeting.Offers[Rank] = new Offer(what, own);
        _meeting.Wait(Rank, what);
        var offers = _meeting.Offers;
        // Every member finds the same, so none is left waiting.
        if (Array.FindIndex(offers, o => !o.Fits(offers[0])) is >= 0 and var other)
            throw new ProcessGroupException(Rank, $"process {other} calls {offers[other]}", $"process 0 calls {offers[0]}");
        var result = work([.. offers.Select(o => o.Tensors)]);
        _meeting.Wait(Rank, what);
        return result;
    }

    /// <summary>What a member brings to an operation. Forms are noted beforehand: a member that finds a difference may have disposed its tensors when another one looks.</summary>
    private sealed record Offer(string What, IReadOnlyList<Tensor> Tensors)
    {
        private readonly (ScalarType Dtype, long[] Shape)[] _forms = [.. Tensors.Select(t => (t.dtype, t.shape))];

        public bool Fits(Offer other) => What == other.What && _forms.Length == other._forms.Length
            && _forms.Zip(other._forms).All(p => p.First.Dtype == p.Second.Dtype && p.First.Shape.SequenceEqual(p.Second.Shape));

        public override string ToString()
            => _forms.Length == 0 ? What : $"{What} of {string.Join(" and ", _forms.Select(f => $"({string.Join(", ", f.Shape)}) {f.Dtype}"))}";
    }

    private sealed class Meeting(int size) : IDisposable
    {
        private readonly Barrier _barrier = new(size);
        private readonly CancellationTokenSource _aborted = new();

        public int Size => size;

        public Offer[] Offers { get; } = new Offer[size];

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
