using Peft.Core;

namespace Peft.Llava;

/// <summary>A command line cannot be honoured as it stands. All problems are reported at once; nothing was started.</summary>
public sealed class CommandLineException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="problems">One sentence each, with what to do instead.</param>
    public CommandLineException(IReadOnlyList<string> problems)
        : base(problems.Count == 1
            ? $"The command line has a problem: {problems[0]}."
            : $"The command line has {problems.Count} problems:{string.Concat(problems.Select(p => $"\n  - {p}."))}")
        => Problems = problems;

    /// <summary>One sentence per problem.</summary>
    public IReadOnlyList<string> Problems { get; }
}
