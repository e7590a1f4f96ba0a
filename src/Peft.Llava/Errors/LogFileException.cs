using Peft.Core;

namespace Peft.Llava;

/// <summary>A log cannot be continued, because the file that is there is something else.</summary>
public sealed class LogFileException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="path">The file.</param>
    /// <param name="problem">What is wrong, as half a sentence.</param>
    public LogFileException(string path, string problem)
        : base($"{path} cannot be continued: {problem}. Name another file, or move this one away.") => Path = path;

    /// <summary>The file.</summary>
    public string Path { get; }
}
