namespace Peft.Llava;

/// <summary>How far and how wide to work ahead.</summary>
public sealed record PrefetchOptions
{
    /// <summary>Batches made at the same time.</summary>
    public int Workers { get; init; } = Math.Max(1, Environment.ProcessorCount / 2);

    /// <summary>Batches that may be ready or in the making before they are asked for; bounds the memory.</summary>
    public int BatchesAhead { get; init; } = 4;
}

/// <summary>
/// Makes batches ahead of their use. Which batch comes when is decided by the order given, never by the workers, so a run does not depend on
/// their number. A worker's exception comes up, as it is, where its batch was due; what was made ahead is disposed.
/// </summary>
public static class PrefetchLoader
{
    /// <summary>Collated batches of a data set.</summary>
    /// <param name="dataset">The data set.</param>
    /// <param name="collator">Puts samples together; made with the model's batch builder.</param>
    /// <param name="batches">The samples of each batch, by place.</param>
    /// <param name="options">How far ahead; null for the defaults.</param>
    /// <param name="cancellation">Stops the work.</param>
    /// <returns>The batches in their order; whoever takes one disposes it.</returns>
    /// <exception cref="SampleException">A sample cannot be trained on: thrown where its batch was due.</exception>
    public static IEnumerable<LlavaBatch> Batches(
        LlavaDataset dataset, LlavaCollator collator, IReadOnlyList<IReadOnlyList<int>> batches, PrefetchOptions? options = null,
        CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(dataset);
        ArgumentNullException.ThrowIfNull(collator);
        ArgumentNullException.ThrowIfNull(batches);
        return InOrder(batches.Count, (i, token) =>
        {
            var samples = new List<EncodedSample>(batches[i].Count);
            try
            {
                foreach (int index in batches[i])
                {
                    token.ThrowIfCancellationRequested();
                    samples.Add(dataset.Encode(index));
                }
                return collator.Collate(samples);
            }
            finally
            {
                samples.ForEach(s => s.Dispose());
            }
        }, options, cancellation);
    }

    /// <summary>Items made by several threads, given out in order.</summary>
    /// <param name="count">Number of items.</param>
    /// <param name="make">Makes the item of an index; called on other threads, several at a time.</param>
    /// <param name="options">How far ahead; null for the defaults.</param>
    /// <param name="cancellation">Stops the work.</param>
    /// <typeparam name="T">The items; those that nobody took are disposed.</typeparam>
    public static IEnumerable<T> InOrder<T>(
        int count, Func<int, CancellationToken, T> make, PrefetchOptions? options = null, CancellationToken cancellation = default)
        where T : IDisposable
    {
        ArgumentNullException.ThrowIfNull(make);
        options ??= new PrefetchOptions();
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(options.Workers, nameof(options));
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(options.BatchesAhead, nameof(options));
        return Run(count, make, options, cancellation);
    }

    private static IEnumerable<T> Run<T>(int count, Func<int, CancellationToken, T> make, PrefetchOptions options, CancellationToken cancellation)
        where T : IDisposable
    {
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        using var places = new SemaphoreSlim(options.Workers);
        var ahead = new Queue<Task<T>>();
        try
        {
            for (int next = 0; next < count || ahead.Count > 0;)
            {
                while (next < count && ahead.Count < options.BatchesAhead) ahead.Enqueue(Start(next++));
                yield return ahead.Dequeue().GetAwaiter().GetResult();
            }
        }
        finally
        {
            stop.Cancel();
            foreach (var task in ahead) DisposeResult(task);
        }

        Task<T> Start(int index) => Task.Run(async () =>
        {
            await places.WaitAsync(stop.Token).ConfigureAwait(false);
            try
            {
                stop.Token.ThrowIfCancellationRequested();
                return make(index, stop.Token);
            }
            finally
            {
                places.Release();
            }
        }, stop.Token);
    }

    /// <summary>Waits for work that is no longer wanted: its threads must not outlive the loader, and its tensors nobody else knows.</summary>
    private static void DisposeResult<T>(Task<T> task)
        where T : IDisposable
    {
        ((Task)task).ContinueWith(static _ => { }, TaskScheduler.Default).Wait();
        if (task.IsCompletedSuccessfully) task.Result.Dispose();
    }
}
