using System.Text;

namespace Peft.Llava;

/// <summary>Tells formats apart by their first bytes.</summary>
internal static class ImageContent
{
    /// <summary>The format of a file's content.</summary>
    /// <exception cref="ImageDecodeException">The content is no picture, or one that is not decoded.</exception>
    public static ImageFormat Identify(ReadOnlySpan<byte> data, string source)
    {
        if (data.IsEmpty) throw new ImageDecodeException(source, null, ImageFault.Empty, "The file is empty");
        if (data.StartsWith((ReadOnlySpan<byte>)[0xff, 0xd8, 0xff])) return ImageFormat.Jpeg;
        if (data.StartsWith((ReadOnlySpan<byte>)[0x89, (byte)'P', (byte)'N', (byte)'G', 13, 10, 26, 10])) return ImageFormat.Png;
        if (data.StartsWith("GIF87a"u8) || data.StartsWith("GIF89a"u8)) return ImageFormat.Gif;
        if (data.StartsWith("RIFF"u8) && data.Length >= 12 && data[8..12].SequenceEqual("WEBP"u8)) return ImageFormat.WebP;
        if (data.StartsWith("II*\0"u8) || data.StartsWith("MM\0*"u8) || data.StartsWith("II+\0"u8) || data.StartsWith("MM\0+"u8)) return ImageFormat.Tiff;
        if (data.StartsWith("BM"u8)) return ImageFormat.Bmp;
        if (OtherKind(data) is { } kind) throw new ImageDecodeException(source, null, ImageFault.Unsupported, $"The content is {kind}, which is not decoded");
        throw new ImageDecodeException(source, null, ImageFault.NotAnImage, $"The content is no picture; it begins with {Begin(data)}");
    }

    private static string? OtherKind(ReadOnlySpan<byte> data)
    {
        if (data.Length >= 12 && data[4..8].SequenceEqual("ftyp"u8))
            return Encoding.ASCII.GetString(data[8..12]) switch
            {
                "avif" or "avis" => "an AVIF picture",
                "heic" or "heix" or "mif1" or "msf1" => "a HEIF picture",
                _ => "a video",
            };
        if (data.StartsWith("8BPS"u8)) return "a Photoshop document";
        if (data.StartsWith("%PDF"u8)) return "a PDF document";
        if (data.StartsWith((ReadOnlySpan<byte>)[0, 0, 1, 0])) return "a Windows icon";
        if (data.StartsWith((ReadOnlySpan<byte>)[0xff, 0x0a]) || data.StartsWith((ReadOnlySpan<byte>)[0, 0, 0, 12, (byte)'J', (byte)'X', (byte)'L'])) return "a JPEG XL picture";
        if (data.StartsWith((ReadOnlySpan<byte>)[0, 0, 0, 12, (byte)'j', (byte)'P'])) return "a JPEG 2000 picture";
        string text = Encoding.ASCII.GetString(data[..Math.Min(data.Length, 512)]);
        return text.Contains("<svg", StringComparison.OrdinalIgnoreCase) ? "an SVG drawing" : null;
    }

    /// <summary>The first bytes for a message: as text if they are, else in hexadecimal.</summary>
    private static string Begin(ReadOnlySpan<byte> data)
    {
        var head = data[..Math.Min(data.Length, 24)];
        foreach (byte b in head)
            if (b is not (>= 32 and < 127) and not 9 and not 10 and not 13) return Convert.ToHexString(head[..Math.Min(head.Length, 8)]);
        return $"'{Encoding.ASCII.GetString(head).Trim().ReplaceLineEndings(" ")}'";
    }
}
