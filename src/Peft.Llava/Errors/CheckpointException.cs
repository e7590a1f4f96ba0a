using Peft.Core;

namespace Peft.Llava;

/// <summary>A checkpoint folder cannot be used, or a checkpoint that was just written does not read back as it should.</summary>
public sealed class CheckpointException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="folder">The folder.</param>
    /// <param name="problem">What is wrong with it.</param>
    /// <param name="nextStep">What to do, a whole sentence.</param>
    /// <param name="innerException">The cause.</param>
    public CheckpointException(string folder, string problem, string nextStep, Exception? innerException = null)
        : base($"The checkpoint {folder} can't be used: {problem}. {nextStep}", innerException)
        => Folder = folder;

    /// <summary>The folder.</summary>
    public string Folder { get; }
}
