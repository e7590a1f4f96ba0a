using Peft.Core;

namespace Peft.Llava;

/// <summary>A picture is so long and thin that processing it would need more memory than one array can hold.</summary>
public sealed class ImageShapeException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="width">The width of the (intermediate) picture that would be needed.</param>
    /// <param name="height">Its height.</param>
    public ImageShapeException(long width, long height)
        : base($"Processing this picture needs an intermediate picture of {width}x{height}, which is too large. "
            + "Crop or shrink the file first; a picture so long and thin holds nothing the vision tower could see.")
    {
        Width = width;
        Height = height;
    }

    /// <summary>The width of the picture that would be needed.</summary>
    public long Width { get; }

    /// <summary>Its height.</summary>
    public long Height { get; }

    /// <summary>Bytes of an RGB picture, if an array can hold them.</summary>
    internal static int CheckedBytes(long width, long height)
        => width * height <= Array.MaxLength / 3 ? (int)(3 * width * height) : throw new ImageShapeException(width, height);
}
