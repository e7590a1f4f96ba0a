namespace Peft.Core;

/// <summary>Which adapter each sample of a batch uses.</summary>
internal sealed record SampleAdapters(IReadOnlyList<string> Names, IReadOnlyList<long>? Lengths)
{
    /// <summary>PEFT's name for "no adapter".</summary>
    public const string Base = "__base__";

    /// <summary>Runs of neighbouring rows that use one adapter; rows of the base are left out.</summary>
    /// <param name="rows">The first dimension of a layer's input: samples, or the packed rows of all samples.</param>
    /// <exception cref="AdapterStateException">The rows are neither.</exception>
    public IEnumerable<(string Adapter, long Start, long Length)> RunsOf(long rows)
    {
        IReadOnlyList<long> lengths;
        if (rows == Names.Count) lengths = [.. Enumerable.Repeat(1L, Names.Count)];
        else if (Lengths is not null && Lengths.Sum() == rows) lengths = Lengths;
        else
        {
            throw new AdapterStateException($"{Names.Count} adapter names were given for a batch of {rows} rows"
                + (Lengths is null ? "; give one name for each sample, and the samples' lengths if the batch is packed." : $", but the lengths given add up to {Lengths.Sum()}."));
        }
        long start = 0;
        for (int i = 0; i < Names.Count;)
        {
            int next = i;
            long length = 0;
            while (next < Names.Count && Names[next] == Names[i]) length += lengths[next++];
            if (Names[i] != Base && length > 0) yield return (Names[i], start, length);
            start += length;
            i = next;
        }
    }
}
