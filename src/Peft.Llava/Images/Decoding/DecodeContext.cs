namespace Peft.Llava;

/// <summary>What a decoder needs in order to speak of its file.</summary>
internal sealed record DecodeContext(string Source, ImageFormat Format)
{
    /// <summary>The exception for a fault; the caller throws it.</summary>
    public ImageDecodeException Fail(ImageFault fault, string found, Exception? cause = null) => new(Source, Format, fault, found, cause);

    public ImageDecodeException Truncated(string found, Exception? cause = null) => Fail(ImageFault.Truncated, found, cause);

    public ImageDecodeException Corrupt(string found, Exception? cause = null) => Fail(ImageFault.Corrupt, found, cause);

    public ImageDecodeException Unsupported(string found) => Fail(ImageFault.Unsupported, found);

    /// <summary>Refuses a size that is empty or a bomb. Call it before anything is allocated for the picture.</summary>
    public void CheckSize(long width, long height)
    {
        if (width < 1 || height < 1) throw Fail(ImageFault.NoPixels, $"Its header claims {width}x{height} pixels");
        if (width > ImageDecoder.MaxPixels || height > ImageDecoder.MaxPixels || width * height > ImageDecoder.MaxPixels)
            throw Fail(ImageFault.TooLarge, $"Its header claims {width}x{height} pixels, more than {ImageDecoder.MaxPixels}");
    }

    /// <summary>A picture whose pixels are still to be written, all of them.</summary>
    public static RgbImage NewImage(int width, int height) => new(width, height, GC.AllocateUninitializedArray<byte>(3 * width * height));
}
