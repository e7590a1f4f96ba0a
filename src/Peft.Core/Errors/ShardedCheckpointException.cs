namespace Peft.Core;

/// <summary>The index of a checkpoint in several files and the files do not fit together.</summary>
public sealed class ShardedCheckpointException : TensorFileException
{
    private const int Shown = 20;

    /// <summary>Creates the exception.</summary>
    /// <param name="sourceFile">The index file.</param>
    /// <param name="faults">All faults, one line each.</param>
    public ShardedCheckpointException(string sourceFile, IReadOnlyList<string> faults)
        : base(sourceFile, null, $"{sourceFile}: {faults.Count} fault(s).\n  {string.Join("\n  ", faults.Take(Shown))}\n"
            + (faults.Count > Shown ? $"  and {faults.Count - Shown} more\n" : "")
            + "Download or copy the whole checkpoint again: its files belong to one saving.")
    {
        Faults = faults;
    }

    /// <summary>All faults, one line each.</summary>
    public IReadOnlyList<string> Faults { get; }
}
