namespace Peft.Core;

/// <summary>A tensor cannot be written in the format asked for; nothing was written.</summary>
public sealed class TensorWriteException : TensorFileException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="sourceFile">The file that was to be written.</param>
    /// <param name="tensor">The tensor's name.</param>
    /// <param name="fault">What is wrong with it.</param>
    /// <param name="nextStep">What to do.</param>
    public TensorWriteException(string sourceFile, string tensor, string fault, string nextStep)
        : base(sourceFile, tensor, $"{sourceFile}: tensor '{tensor}' {fault}. Nothing was written. {nextStep}")
    {
    }
}
