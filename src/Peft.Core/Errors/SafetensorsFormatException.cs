namespace Peft.Core;

/// <summary>What can be wrong with a safetensors file.</summary>
public enum SafetensorsFault
{
    /// <summary>Fewer than the 8 bytes that hold the header's length.</summary>
    TooShort,

    /// <summary>The header would be longer than the format allows (100 MB).</summary>
    HeaderTooLarge,

    /// <summary>The header reaches beyond the file.</summary>
    HeaderCutOff,

    /// <summary>The header is no valid UTF-8.</summary>
    HeaderNotUtf8,

    /// <summary>The header is no JSON of the format's form.</summary>
    HeaderNotJson,

    /// <summary>A name, a field or a metadata key stands twice.</summary>
    Duplicate,

    /// <summary>A dtype that this library does not know.</summary>
    UnknownDtype,

    /// <summary>A shape with a negative side, or of more elements than 64 bits can count.</summary>
    InvalidShape,

    /// <summary>Offsets that are negative, reversed, or reach beyond the file.</summary>
    InvalidOffsets,

    /// <summary>Offsets whose distance is not what shape and dtype need.</summary>
    SizeMismatch,

    /// <summary>Two tensors share bytes.</summary>
    Overlap,

    /// <summary>Bytes that belong to no tensor.</summary>
    Unclaimed,

    /// <summary>The file ends before its tensors do.</summary>
    CutOff,
}

/// <summary>A safetensors file is damaged or malformed.</summary>
public sealed class SafetensorsFormatException : TensorFileException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="sourceFile">The file.</param>
    /// <param name="fault">The kind of fault.</param>
    /// <param name="details">What is wrong, with the data.</param>
    /// <param name="tensor">The tensor it is about, or null.</param>
    public SafetensorsFormatException(string sourceFile, SafetensorsFault fault, string details, string? tensor = null)
        : base(sourceFile, tensor, $"{sourceFile}: {(tensor is null ? "" : $"tensor '{tensor}': ")}{details}. {NextStep(fault)}")
    {
        Fault = fault;
    }

    /// <summary>The kind of fault.</summary>
    public SafetensorsFault Fault { get; }

    private static string NextStep(SafetensorsFault fault) => fault switch
    {
        SafetensorsFault.TooShort or SafetensorsFault.HeaderCutOff or SafetensorsFault.CutOff
            => "The file was cut off: copy or download it again, and check its size.",
        SafetensorsFault.HeaderTooLarge or SafetensorsFault.HeaderNotUtf8 or SafetensorsFault.HeaderNotJson
            => "Check that this is a safetensors file (TensorFiles.Open tells formats apart), or download it again.",
        SafetensorsFault.UnknownDtype => "Convert it in Python to one of: " + string.Join(", ", TensorDtypes.Names) + ".",
        _ => "The file was not written by a safetensors library as it stands: write or download it again.",
    };
}
