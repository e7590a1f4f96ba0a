namespace Peft.Llava;

/// <summary>Why a picture cannot be had.</summary>
public enum ImageFault
{
    /// <summary>There is no such file.</summary>
    Missing,

    /// <summary>The file is there but cannot be read.</summary>
    Unreadable,

    /// <summary>The file has no bytes.</summary>
    Empty,

    /// <summary>The header claims a width or height of 0.</summary>
    NoPixels,

    /// <summary>The content is no picture.</summary>
    NotAnImage,

    /// <summary>A picture of a kind that this library does not decode.</summary>
    Unsupported,

    /// <summary>The file ends before its picture does, or its header claims more than the file can hold.</summary>
    Truncated,

    /// <summary>The content contradicts itself.</summary>
    Corrupt,

    /// <summary>More pixels than <see cref="ImageDecoder.MaxPixels"/>.</summary>
    TooLarge,

    /// <summary>The native library of the format's decoder is not there or does not load.</summary>
    DecoderMissing,
}
