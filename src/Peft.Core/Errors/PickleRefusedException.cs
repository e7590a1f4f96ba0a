namespace Peft.Core;

/// <summary>
/// A PyTorch file asks for something other than tensors and plain containers. Unpickling it as Python does would run code that the file
/// chooses; nothing was run.
/// </summary>
public sealed class PickleRefusedException : TensorFileException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="sourceFile">The file.</param>
    /// <param name="refused">What the file asks for: a Python name such as <c>os.system</c>, or an operation.</param>
    public PickleRefusedException(string sourceFile, string refused)
        : base(sourceFile, null, $"{sourceFile} asks for {refused}, which is neither a tensor nor a plain container; nothing was run. "
            + "If you trust the file, load it in Python and save its tensors alone, best as safetensors.")
    {
        Refused = refused;
    }

    /// <summary>What the file asks for.</summary>
    public string Refused { get; }
}
