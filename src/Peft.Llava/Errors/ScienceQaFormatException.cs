using Peft.Core;

namespace Peft.Llava;

/// <summary>There is no prompt format of a name for ScienceQA.</summary>
public sealed class ScienceQaFormatException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="name">The name asked for.</param>
    /// <param name="questions">The forms of a question.</param>
    /// <param name="answers">The forms of an answer.</param>
    public ScienceQaFormatException(string name, IEnumerable<string> questions, IEnumerable<string> answers)
        : base($"There is no ScienceQA format '{name}'. A format is a question's form, a hyphen and an answer's form: one of {string.Join(", ", questions)}; "
            + $"and one of {string.Join(", ", answers)}. LLaVA trains with QCM-LEA.")
    {
        Name = name;
    }

    /// <summary>The name asked for.</summary>
    public string Name { get; }
}
