namespace Peft.Llava;

/// <summary>Gathers a file's samples and faults; all faults are told at once.</summary>
internal sealed class RecordCollector(string path, RecordChecks checks)
{
    private readonly List<LlavaSample> _samples = [];
    private readonly List<RecordFault> _faults = [];
    private readonly Dictionary<string, int> _places = new(StringComparer.Ordinal);

    /// <summary>Records seen so far, and the place of the next one.</summary>
    public int Count => _samples.Count + _faults.Count;

    /// <summary>Takes in the next record.</summary>
    /// <param name="id">Its id, or null.</param>
    /// <param name="line">Its line, or null.</param>
    /// <param name="read">Makes the sample of a place.</param>
    public void Add(string? id, int? line, Func<int, LlavaSample> read)
    {
        int index = Count;
        try
        {
            var sample = read(index);
            if (checks.HasFlag(RecordChecks.UniqueIds) && !_places.TryAdd(sample.Id, index))
                throw new MalformedRecord(RecordProblem.DuplicateId, $"record {_places[sample.Id]} has the same id (give each its own, or leave ids out)");
            _samples.Add(sample);
        }
        catch (MalformedRecord e)
        {
            _faults.Add(new RecordFault(index, id ?? $"#{index}", e.Kind, e.Message) { Line = line });
        }
    }

    /// <summary>All samples.</summary>
    /// <exception cref="DataFileException">There were faults.</exception>
    public IReadOnlyList<LlavaSample> Finish() => _faults.Count > 0 ? throw new DataFileException(path, _faults) : _samples;
}
