using Peft.Core;

namespace Peft.Llava;

/// <summary>A configuration file holds values this library cannot honour. All problems are told at once.</summary>
public sealed class InvalidConfigurationException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="source">The file or object the values come from.</param>
    /// <param name="problems">One sentence per problem.</param>
    /// <param name="nextStep">What to do, a whole sentence; null for a file's.</param>
    public InvalidConfigurationException(string source, IReadOnlyList<string> problems, string? nextStep = null)
        : base($"{source}: {problems.Count} value(s) cannot be used.\n  " + string.Join("\n  ", problems)
            + "\n" + (nextStep ?? "Correct the file, or pass corrected values with LlavaLoadOptions.Config."))
    {
        SourceFile = source;
        Problems = problems;
    }

    /// <summary>The file or object the values come from.</summary>
    public string SourceFile { get; }

    /// <summary>One sentence per problem.</summary>
    public IReadOnlyList<string> Problems { get; }
}
