namespace Peft.Llava;

/// <summary>The batches of one step; disposing it disposes them.</summary>
internal sealed record StepWork(PlannedStep Plan, IReadOnlyList<LlavaBatch> Batches) : IDisposable
{
    public void Dispose()
    {
        foreach (var batch in Batches) batch.Dispose();
    }
}

/// <summary>
/// Prepares the batches of coming steps in order, a bounded number of them ahead on other threads, or in between without any. The order is that
/// of the plan however many threads there are.
/// </summary>
internal sealed class BatchSource : IDisposable
{
    private readonly ITrainingData _data;
    private readonly IEnumerator<PlannedStep> _steps;
    private readonly Queue<(PlannedStep Plan, Task<LlavaBatch>[] Batches)> _ahead = new();
    private readonly SemaphoreSlim? _threads;
    private readonly int _workers;
    private readonly CancellationTokenSource _stop;

    public BatchSource(ITrainingData data, IEnumerable<PlannedStep> steps, int workers, CancellationToken cancellation)
    {
        _data = data;
        _steps = steps.GetEnumerator();
        _workers = workers;
        _threads = workers > 0 ? new SemaphoreSlim(workers) : null;
        _stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
    }

    /// <summary>The next step's batches, or null at the end; the caller disposes them.</summary>
    public StepWork? Next()
    {
        if (_threads is null)
        {
            _stop.Token.ThrowIfCancellationRequested();
            if (!_steps.MoveNext()) return null;
            var batches = new List<LlavaBatch>();
            try
            {
                foreach (int[] indices in _steps.Current.MicroBatches) batches.Add(_data.Batch(indices));
            }
            catch
            {
                batches.ForEach(b => b.Dispose());
                throw;
            }
            return new StepWork(_steps.Current, batches);
        }
        while (_ahead.Sum(w => w.Batches.Length) <= _workers && _steps.MoveNext())
            _ahead.Enqueue((_steps.Current, [.. _steps.Current.MicroBatches.Select(indices => Task.Run(() => Prepare(indices)))]));
        if (_ahead.Count == 0) return null;
        var next = _ahead.Peek();
        var ready = next.Batches.Select(t => t.GetAwaiter().GetResult()).ToList();
        _ahead.Dequeue();
        return new StepWork(next.Plan, ready);
    }

    private LlavaBatch Prepare(int[] indices)
    {
        _threads!.Wait(_stop.Token);
        try
        {
            return _data.Batch(indices);
        }
        finally
        {
            _threads.Release();
        }
    }

    public void Dispose()
    {
        _stop.Cancel();
        foreach (var task in _ahead.SelectMany(w => w.Batches))
        {
            try
            {
                task.GetAwaiter().GetResult().Dispose();
            }
            catch (Exception) when (!task.IsCompletedSuccessfully)
            {
                // Its failure either reached the caller already, or belongs to a step that is not done any more.
            }
        }
        _steps.Dispose();
        _threads?.Dispose();
        _stop.Dispose();
    }
}
