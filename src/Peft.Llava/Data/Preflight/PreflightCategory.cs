namespace Peft.Llava;

/// <summary>How bad a finding is.</summary>
public enum PreflightSeverity
{
    /// <summary>The sample can be trained on, but not as it may seem.</summary>
    Warning,

    /// <summary>The sample cannot be trained on as it is.</summary>
    Error,
}

/// <summary>What can be found in a sample before a run.</summary>
public enum PreflightCategory
{
    /// <summary>An image file is not there.</summary>
    MissingImage,

    /// <summary>An image file is there but cannot be read.</summary>
    UnreadableImage,

    /// <summary>An image file has no bytes, or its header claims a width or height of 0.</summary>
    ZeroSizeImage,

    /// <summary>An image file ends before its picture does.</summary>
    TruncatedImage,

    /// <summary>An image file contradicts itself.</summary>
    CorruptImage,

    /// <summary>A file's content is no picture.</summary>
    NotAnImage,

    /// <summary>A picture of a format or kind that is not decoded.</summary>
    UnsupportedImage,

    /// <summary>A header claims more than <see cref="ImageDecoder.MaxPixels"/>: a decompression bomb, or a picture too large to train on.</summary>
    DecompressionBomb,

    /// <summary>A picture so long and thin that processing it would take more memory than an array can hold.</summary>
    ExtremeShape,

    /// <summary>The native library of a format's decoder does not load.</summary>
    DecoderMissing,

    /// <summary>Warning: inks, which become RGB by plain arithmetic, as Pillow does it, without a colour profile.</summary>
    CmykImage,

    /// <summary>Warning: 16 bits per sample, which become 8 as Pillow does it: of colours the high byte, of grey min(value, 255), so mostly white.</summary>
    SixteenBitImage,

    /// <summary>Warning: EXIF says that the picture is to be turned, which LLaVA's Pillow pipeline does not do, and so neither does this library.</summary>
    RotatedImage,

    /// <summary>The text has another number of image placeholders than the sample has images.</summary>
    PlaceholderCount,

    /// <summary>The template cannot write the conversation.</summary>
    Conversation,

    /// <summary>No position has a label, or none before the length limit.</summary>
    NothingSupervised,

    /// <summary>Warning: longer than the limit; the end is cut off.</summary>
    TooLong,
}

/// <summary>What categories mean.</summary>
public static class PreflightCategories
{
    /// <summary>How bad findings of a category are.</summary>
    /// <param name="category">The category.</param>
    public static PreflightSeverity SeverityOf(this PreflightCategory category) => category is PreflightCategory.CmykImage
        or PreflightCategory.SixteenBitImage or PreflightCategory.RotatedImage or PreflightCategory.TooLong
        ? PreflightSeverity.Warning
        : PreflightSeverity.Error;

    /// <summary>Whether a blank picture can take the place of what is at fault.</summary>
    /// <param name="category">The category.</param>
    public static bool IsImageFault(this PreflightCategory category)
        => category.SeverityOf() == PreflightSeverity.Error && category <= PreflightCategory.DecoderMissing;
}
