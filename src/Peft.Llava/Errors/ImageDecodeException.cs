using Peft.Core;

namespace Peft.Llava;

/// <summary>A picture cannot be had: the file is missing, no picture, damaged, or too large.</summary>
public sealed class ImageDecodeException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="source">The file, or what else the bytes came from.</param>
    /// <param name="format">The format the content shows, or null.</param>
    /// <param name="fault">The kind of fault.</param>
    /// <param name="found">What was found, as a sentence without its full stop.</param>
    /// <param name="innerException">The cause, if another exception led here.</param>
    public ImageDecodeException(string source, ImageFormat? format, ImageFault fault, string found, Exception? innerException = null)
        : base($"{source}: {(format is null ? "" : $"{format} picture: ")}{found}. {NextStep(fault)}", innerException)
    {
        SourceFile = source;
        Format = format;
        Fault = fault;
        Found = found;
    }

    /// <summary>The file, or what else the bytes came from.</summary>
    public string SourceFile { get; }

    /// <summary>The format the content shows, or null.</summary>
    public ImageFormat? Format { get; }

    /// <summary>The kind of fault.</summary>
    public ImageFault Fault { get; }

    /// <summary>What was found.</summary>
    public string Found { get; }

    private static string NextStep(ImageFault fault) => fault switch
    {
        ImageFault.Missing => "Check the image folder and the sample's image path.",
        ImageFault.Unreadable => "Check the file's permissions and the disk.",
        ImageFault.Unsupported => "Convert it to PNG or JPEG.",
        ImageFault.TooLarge => "Shrink the picture before training.",
        ImageFault.DecoderMissing => "Reference SkiaSharp.NativeAssets.Linux.NoDependencies (Linux), .Win32 or .macOS in the application, in SkiaSharp's version; "
            + "PNG, GIF, BMP and TIFF need no native library.",
        _ => "Fetch or export the file again, or leave out the sample.",
    };
}
