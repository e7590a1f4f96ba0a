namespace Peft.Core;

/// <summary>Root of what can be wrong with a file of tensors; knows the file and, where it is about one, the tensor.</summary>
public abstract class TensorFileException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="sourceFile">The file or folder.</param>
    /// <param name="tensor">The tensor it is about, or null.</param>
    /// <param name="message">What is wrong, with its data, and the next step.</param>
    /// <param name="innerException">The cause, if another exception led here.</param>
    protected TensorFileException(string sourceFile, string? tensor, string message, Exception? innerException = null)
        : base(message, innerException)
    {
        SourceFile = sourceFile;
        Tensor = tensor;
    }

    /// <summary>The file or folder.</summary>
    public string SourceFile { get; }

    /// <summary>The tensor it is about, or null.</summary>
    public string? Tensor { get; }
}
