namespace Peft.Core;

/// <summary>How a tensor of a file does not fit the tensors wanted.</summary>
public enum StateFaultKind
{
    /// <summary>Wanted, but not in the file.</summary>
    Missing,

    /// <summary>In the file, but not wanted.</summary>
    Unexpected,

    /// <summary>Another shape; shapes that would broadcast do not fit either.</summary>
    Shape,

    /// <summary>A dtype that the policy does not convert.</summary>
    Dtype,
}

/// <summary>One tensor that does not fit.</summary>
/// <param name="Kind">How.</param>
/// <param name="Name">Its name: the model's for missing ones, otherwise the file's.</param>
/// <param name="Text">What is wrong, for people.</param>
/// <param name="Suggestion">For names: the nearest one on the other side, or null.</param>
public sealed record StateFault(StateFaultKind Kind, string Name, string Text, string? Suggestion = null);

/// <summary>A file's tensors are not those wanted. Nothing was changed.</summary>
public sealed class StateMismatchException : PeftException
{
    private const int Shown = 50;

    /// <summary>Creates the exception.</summary>
    /// <param name="sourceFile">The file.</param>
    /// <param name="model">What the tensors were wanted for.</param>
    /// <param name="faults">All faults.</param>
    public StateMismatchException(string sourceFile, string model, IReadOnlyList<StateFault> faults)
        : base($"{Path.GetFileName(sourceFile)}: {faults.Count} tensor(s) do not fit.\n"
            + string.Concat(faults.Take(Shown).Select(fault => $"  {fault.Name}: {fault.Text}"
                + (fault.Suggestion is null ? "" : $"; did you mean {fault.Suggestion}?") + "\n"))
            + (faults.Count > Shown ? $"  and {faults.Count - Shown} more\n" : "")
            + $"Nothing was changed. Load the file that was saved from {model}, or only what fits with StrictState.LoadPartial.")
    {
        SourceFile = sourceFile;
        Model = model;
        Faults = faults;
    }

    /// <summary>The file.</summary>
    public string SourceFile { get; }

    /// <summary>What the tensors were wanted for.</summary>
    public string Model { get; }

    /// <summary>All faults.</summary>
    public IReadOnlyList<StateFault> Faults { get; }
}
