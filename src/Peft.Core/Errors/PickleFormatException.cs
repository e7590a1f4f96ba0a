namespace Peft.Core;

/// <summary>A PyTorch file is damaged or is not of the form that <c>torch.save</c> writes.</summary>
public sealed class PickleFormatException : TensorFileException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="sourceFile">The file.</param>
    /// <param name="fault">What is wrong.</param>
    /// <param name="nextStep">What to do; null for the usual: fetch or save the file again.</param>
    /// <param name="tensor">The tensor it is about, or null.</param>
    /// <param name="innerException">The cause, if another exception led here.</param>
    public PickleFormatException(string sourceFile, string fault, string? nextStep = null, string? tensor = null, Exception? innerException = null)
        : base(sourceFile, tensor, $"{sourceFile}: {(tensor is null ? "" : $"tensor '{tensor}': ")}{fault}. {nextStep ?? "Copy or save the file again."}", innerException)
    {
    }
}
