using System.Buffers;

namespace Peft.Llava;

/// <summary>
/// Decodes picture files to RGB as Pillow's <c>Image.open(path).convert('RGB')</c> does, which is how LLaVA loads them: alpha is dropped and
/// the colour beneath it kept, colour profiles, gamma and EXIF orientation are not applied, 16-bit grey becomes min(value, 255).
/// </summary>
public static class ImageDecoder
{
    /// <summary>Pictures with more pixels are refused from their header, before anything is allocated (Pillow's limit).</summary>
    public const long MaxPixels = 178_956_970;

    /// <summary>Decodes a file.</summary>
    /// <param name="path">The file; its name's ending does not matter.</param>
    /// <returns>A fresh picture, with its <see cref="RgbImage.Traits"/>.</returns>
    /// <exception cref="ImageDecodeException">The file is missing, no picture, damaged or too large.</exception>
    public static RgbImage Decode(string path)
    {
        ArgumentNullException.ThrowIfNull(path);
        byte[]? rented = null;
        try
        {
            int length;
            try
            {
                using var file = File.OpenHandle(path);
                long size = RandomAccess.GetLength(file);
                if (size > Array.MaxLength) throw new ImageDecodeException(path, null, ImageFault.TooLarge, $"The file has {size} bytes");
                rented = ArrayPool<byte>.Shared.Rent((int)size);
                length = ReadAll(file, rented.AsSpan(0, (int)size));
            }
            catch (Exception error) when (error is FileNotFoundException or DirectoryNotFoundException)
            {
                throw new ImageDecodeException(path, null, ImageFault.Missing, "There is no such file", error);
            }
            catch (Exception error) when (error is IOException or UnauthorizedAccessException)
            {
                throw new ImageDecodeException(path, null, ImageFault.Unreadable, $"The file cannot be read ({error.Message.TrimEnd('.')})", error);
            }
            return Decode(rented.AsSpan(0, length), path);
        }
        finally
        {
            if (rented is not null) ArrayPool<byte>.Shared.Return(rented);
        }
    }

    /// <summary>Decodes bytes.</summary>
    /// <param name="data">The content of a picture file.</param>
    /// <param name="source">Its name in error texts.</param>
    /// <returns>A fresh picture, with its <see cref="RgbImage.Traits"/>.</returns>
    /// <exception cref="ImageDecodeException">The bytes are no picture, damaged, or of too large a picture.</exception>
    public static RgbImage Decode(ReadOnlySpan<byte> data, string source)
    {
        var context = new DecodeContext(source, ImageContent.Identify(data, source));
        var picture = context.Format switch
        {
            ImageFormat.Png => PngDecoder.Decode(data, context),
            ImageFormat.Gif => GifDecoder.Decode(data, context),
            ImageFormat.Bmp => BmpDecoder.Decode(data, context),
            ImageFormat.Tiff => TiffDecoder.Decode(data, context),
            _ => SkiaDecoder.Decode(data, context),
        };
        picture.Traits = ImageTraits.Read(data);
        return picture;
    }

    private static int ReadAll(Microsoft.Win32.SafeHandles.SafeFileHandle file, Span<byte> buffer)
    {
        int length = 0;
        while (length < buffer.Length)
        {
            int read = RandomAccess.Read(file, buffer[length..], length);
            if (read == 0) break;
            length += read;
        }
        return length;
    }
}
