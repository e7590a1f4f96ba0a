using Peft.Core;

namespace Peft.Llava;

/// <summary>A tokenizer file is missing, damaged, or of a kind that is not supported.</summary>
public sealed class TokenizerFileException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="path">The file or folder.</param>
    /// <param name="reason">What is wrong, as a sentence without its subject: "is cut off …".</param>
    /// <param name="nextStep">What to do, as a sentence.</param>
    /// <param name="innerException">The cause, if another exception led here.</param>
    public TokenizerFileException(string path, string reason, string nextStep, Exception? innerException = null)
        : base($"{path}: {reason} {nextStep}", innerException)
    {
        Path = path;
        Reason = reason;
    }

    /// <summary>The file or folder.</summary>
    public string Path { get; }

    /// <summary>What is wrong.</summary>
    public string Reason { get; }
}
