using Peft.Core;

namespace Peft.Llava;

/// <summary>Saved training state does not fit this training. Nothing was changed.</summary>
public sealed class StateMismatchException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="what">What was loaded.</param>
    /// <param name="problems">Each thing that does not fit.</param>
    public StateMismatchException(string what, IReadOnlyList<string> problems)
        : base($"{what} does not fit this training ({problems.Count} {(problems.Count == 1 ? "problem" : "problems")}): "
            + $"{string.Join("; ", problems.Take(5))}{(problems.Count > 5 ? "; …" : "")}. Resume with the model and the options it was saved with.")
        => Problems = problems;

    /// <summary>Each thing that does not fit.</summary>
    public IReadOnlyList<string> Problems { get; }
}
