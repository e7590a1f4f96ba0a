namespace Peft.Llava;

/// <summary>A decoded picture: 8-bit RGB, row by row from the top, three bytes per pixel (height x width x 3).</summary>
public sealed class RgbImage
{
    /// <summary>Wraps pixels.</summary>
    /// <param name="width">Pixels from left to right, at least 1.</param>
    /// <param name="height">Pixels from top to bottom, at least 1.</param>
    /// <param name="pixels">height * width * 3 bytes; kept, not copied.</param>
    /// <exception cref="ArgumentException">The array has another length.</exception>
    public RgbImage(int width, int height, byte[] pixels)
    {
        ArgumentNullException.ThrowIfNull(pixels);
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(width);
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(height);
        if (pixels.LongLength != 3L * width * height)
            throw new ArgumentException($"A picture of {width}x{height} has {3L * width * height} bytes of RGB, not {pixels.LongLength}.", nameof(pixels));
        Width = width;
        Height = height;
        Pixels = pixels;
    }

    /// <summary>A black picture.</summary>
    /// <param name="width">Pixels from left to right, at least 1.</param>
    /// <param name="height">Pixels from top to bottom, at least 1.</param>
    public RgbImage(int width, int height)
        : this(width, height, new byte[checked(3 * width * height)])
    {
    }

    /// <summary>Pixels from left to right.</summary>
    public int Width { get; }

    /// <summary>Pixels from top to bottom.</summary>
    public int Height { get; }

    /// <summary>The size, width first.</summary>
    public ImageSize Size => new(Width, Height);

    /// <summary>What the header of the file said that the pixels do not tell; null for a picture that <see cref="ImageDecoder"/> did not decode.</summary>
    public ImageTraits? Traits { get; internal set; }

    /// <summary>height x width x RGB. Owned by this picture: whoever changes it changes the picture.</summary>
#pragma warning disable CA1819 // The pixels are the value; a copy per access would defeat the type.
    public byte[] Pixels { get; }
#pragma warning restore CA1819

    /// <summary>One row: width * 3 bytes.</summary>
    /// <param name="y">The row, from the top.</param>
    public Span<byte> Row(int y) => Pixels.AsSpan(3 * Width * y, 3 * Width);
}
