namespace Peft.Llava;

/// <summary>Gathers what does not fit, so that all of it is told at once.</summary>
internal sealed class CheckpointFaults
{
    private readonly List<string> _missing = [];
    private readonly List<string> _unexpected = [];
    private readonly List<string> _shapes = [];

    public void Missing(string name) => _missing.Add(name);

    public void Unexpected(string name) => _unexpected.Add(name);

    public void CheckShape(string name, IReadOnlyList<long> expected, IReadOnlyList<long> actual)
    {
        if (!expected.SequenceEqual(actual))
            _shapes.Add($"{name}: the file has ({string.Join(", ", actual)}), the model wants ({string.Join(", ", expected)})");
    }

    /// <param name="source">The file or folder.</param>
    /// <param name="advice">What to do about it; null for the usual.</param>
    /// <exception cref="CheckpointMismatchException">Something was gathered.</exception>
    public void ThrowIfAny(string source, string? advice = null)
    {
        if (_missing.Count + _unexpected.Count + _shapes.Count > 0)
            throw new CheckpointMismatchException(source, _missing, _unexpected, _shapes, advice);
    }
}
