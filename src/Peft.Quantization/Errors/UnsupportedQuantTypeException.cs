using Peft.Core;

namespace Peft.Quantization;

/// <summary>A quantisation type that is not known here.</summary>
public sealed class UnsupportedQuantTypeException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="type">The name asked for.</param>
    /// <param name="known">The names known.</param>
    public UnsupportedQuantTypeException(string type, IReadOnlyList<string> known)
        : base($"Quantisation type '{type}' is not known; known are {string.Join(", ", known)}. Choose one of these, or read the file with the library that wrote it.")
    {
        Type = type;
    }

    /// <summary>The name asked for.</summary>
    public string Type { get; }
}
