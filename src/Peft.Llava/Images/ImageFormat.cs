namespace Peft.Llava;

/// <summary>The picture formats that are decoded, told apart by content, never by a file's name.</summary>
public enum ImageFormat
{
    /// <summary>JPEG: baseline and progressive; grey, YCbCr, RGB, CMYK.</summary>
    Jpeg,

    /// <summary>PNG, all colour types and depths, interlaced or not; of an animation the default picture.</summary>
    Png,

    /// <summary>GIF: the first frame.</summary>
    Gif,

    /// <summary>Windows bitmap.</summary>
    Bmp,

    /// <summary>WebP, lossy and lossless; of an animation the first frame.</summary>
    WebP,

    /// <summary>TIFF: the first page.</summary>
    Tiff,
}
