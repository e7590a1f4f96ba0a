using System.Buffers;
using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using SkiaSharp;

namespace Peft.Llava;

/// <summary>
/// JPEG and WebP by Skia. Without a target colour space and with unmultiplied alpha its codecs give the very bytes of Pillow's: slow
/// integer DCT and smooth chroma upsampling, no profile, the colour beneath transparent pixels.
/// </summary>
internal static class SkiaDecoder
{
    public static RgbImage Decode(ReadOnlySpan<byte> data, DecodeContext context)
    {
        if (context.Format == ImageFormat.Jpeg) JpegMarkers.Check(data, context);
        if (context.Format == ImageFormat.WebP && BinaryPrimitives.ReadUInt32LittleEndian(data[4..]) + 8L > data.Length)
            throw context.Truncated("The file is shorter than its header says");
        try
        {
            return DecodeNative(data, context);
        }
        catch (Exception error) when (error is DllNotFoundException or TypeInitializationException or EntryPointNotFoundException or BadImageFormatException)
        {
            // Reached only where SkiaSharp's native library is not there, which cannot be arranged inside a process that has it.
            throw context.Fail(ImageFault.DecoderMissing, $"Its decoder, SkiaSharp's native library, does not load ({(error.InnerException ?? error).Message.Split('\n')[0].TrimEnd(' ', ':', '.')})", error);
        }
    }

    private static unsafe RgbImage DecodeNative(ReadOnlySpan<byte> data, DecodeContext context)
    {
        fixed (byte* start = data)
        {
            using var wrapped = SKData.Create((nint)start, data.Length);
            using var codec = SKCodec.Create(wrapped) ?? throw context.Corrupt("Its header cannot be read");
            int width = codec.Info.Width, height = codec.Info.Height;
            context.CheckSize(width, height);
            var alpha = codec.Info.AlphaType == SKAlphaType.Opaque ? SKAlphaType.Opaque : SKAlphaType.Unpremul;
            var target = new SKImageInfo(width, height, SKColorType.Rgba8888, alpha, null);
            byte[] rented = ArrayPool<byte>.Shared.Rent(checked(4 * width * height));
            try
            {
                SKCodecResult result;
                fixed (byte* pixels = rented) result = codec.GetPixels(target, (nint)pixels);
                if (result != SKCodecResult.Success) throw context.Corrupt($"Its data cannot be decoded ({result})");
                var image = DecodeContext.NewImage(width, height);
                DropAlpha(rented.AsSpan(0, 4 * width * height), image.Pixels);
                return image;
            }
            finally
            {
                ArrayPool<byte>.Shared.Return(rented);
            }
        }
    }

    /// <summary>RGBA to RGB.</summary>
    internal static void DropAlpha(ReadOnlySpan<byte> rgba, Span<byte> rgb)
    {
        int from = 0, to = 0;
        if (Ssse3.IsSupported)
        {
            // Four pixels a step; the four bytes stored too many are the next step's, so the last pixels are left to the loop below.
            var pack = Vector128.Create((byte)0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 0x80, 0x80, 0x80, 0x80);
            ref byte source = ref MemoryMarshal.GetReference(rgba);
            ref byte target = ref MemoryMarshal.GetReference(rgb);
            for (; to + 16 <= rgb.Length; from += 16, to += 12)
                Ssse3.Shuffle(Vector128.LoadUnsafe(ref source, (nuint)from), pack).StoreUnsafe(ref target, (nuint)to);
        }
        for (; to < rgb.Length; from += 4, to += 3)
        {
            rgb[to] = rgba[from];
            rgb[to + 1] = rgba[from + 1];
            rgb[to + 2] = rgba[from + 2];
        }
    }
}
