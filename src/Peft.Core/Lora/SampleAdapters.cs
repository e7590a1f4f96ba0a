namespace Peft.Core;

/// <summary>Which adapter each sample of a batch uses.</summary>
/// <param name="Given">The names as they were given, one for each sample of the batch.</param>
/// <param name="Lengths">The rows of each sample, if given; null for one, or for what the model says.</param>
internal sealed record SampleAdapters(IReadOnlyList<string> Given, IReadOnlyList<long>? Lengths)
{
    /// <summary>PEFT's name for "no adapter".</summary>
    public const string Base = "__base__";

    // What the model says of the rows that are under way.
    private (IReadOnlyList<string> Names, IReadOnlyList<long> Lengths)? Routed { get; init; }

    /// <summary>The same names, for rows of which the model says whose they are.</summary>
    public SampleAdapters Of(IReadOnlyList<int>? samples, IReadOnlyList<int>? rows)
    {
        IReadOnlyList<string> names = samples is null ? Given : [.. samples.Select(s => Given[s])];
        return this with { Routed = (names, rows is null ? [.. Enumerable.Repeat(1L, names.Count)] : [.. rows.Select(r => (long)r)]) };
    }

    /// <summary>Runs of neighbouring rows that use one adapter; those of the base too, under <see cref="Base"/>.</summary>
    /// <param name="rows">The first dimension of a layer's input: samples, or the packed rows of all samples.</param>
    /// <exception cref="AdapterStateException">The rows are neither.</exception>
    public IEnumerable<(string Adapter, long Start, long Length)> RunsOf(long rows)
    {
        var (names, lengths) = Routed ?? AsGiven(rows);
        long total = lengths.Sum(), each = total == 0 ? 0 : rows / total;
        if (total * each != rows)
            throw new AdapterStateException($"The model said that a layer's input has {total} rows or a multiple, and it has {rows}; the layer works on other rows than those of the samples, and its adapters cannot be mixed.");
        long start = 0;
        for (int i = 0; i < names.Count;)
        {
            int next = i;
            long length = 0;
            while (next < names.Count && names[next] == names[i]) length += lengths[next++] * each;
            if (length > 0) yield return (names[i], start, length);
            start += length;
            i = next;
        }
    }

    private (IReadOnlyList<string> Names, IReadOnlyList<long> Lengths) AsGiven(long rows)
    {
        if (rows == Given.Count) return (Given, [.. Enumerable.Repeat(1L, Given.Count)]);
        if (Lengths is not null && Lengths.Sum() == rows) return (Given, Lengths);
        throw new AdapterStateException($"{Given.Count} adapter names were given for a batch of {rows} rows"
            + (Lengths is null ? "; give one name for each sample, and the samples' lengths if the batch is packed." : $", but the lengths given add up to {Lengths.Sum()}."));
    }
}
