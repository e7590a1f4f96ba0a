using Peft.Core;

namespace Peft.Llava;

/// <summary>The settings of a training are contradictory, out of range or cannot be honoured. All problems are reported at once.</summary>
public sealed class TrainingOptionsException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="problems">One sentence each, with what to do instead.</param>
    public TrainingOptionsException(IReadOnlyList<string> problems)
        : base(problems.Count == 1
            ? $"The training settings have a problem: {problems[0]}."
            : $"The training settings have {problems.Count} problems:{string.Concat(problems.Select(p => $"\n  - {p}."))}")
        => Problems = problems;

    /// <summary>One sentence per problem.</summary>
    public IReadOnlyList<string> Problems { get; }
}
