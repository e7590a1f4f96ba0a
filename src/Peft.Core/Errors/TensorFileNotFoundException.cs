namespace Peft.Core;

/// <summary>There is no such file, or it may not be read.</summary>
public sealed class TensorFileNotFoundException : TensorFileException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="sourceFile">The file or folder.</param>
    /// <param name="fault">What is wrong: it does not exist, or what a folder holds instead.</param>
    /// <param name="nextStep">What to do.</param>
    /// <param name="innerException">The cause, if another exception led here.</param>
    public TensorFileNotFoundException(string sourceFile, string fault, string nextStep, Exception? innerException = null)
        : base(sourceFile, null, $"{sourceFile} {fault}. {nextStep}", innerException)
    {
    }
}
