using Xunit;

namespace Peft.Llava.Tests.Images;

public sealed class GifDecoderTests
{
    /// <summary>Screen, palette of four colours: red, green, blue, white.</summary>
    private static readonly byte[] Screen =
        [.. "GIF89a"u8, 3, 0, 2, 0, 0x81, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255];

    /// <summary>A frame's head: left, top, width, height, flags, bits.</summary>
    private static byte[] Frame(byte left, byte top, byte width, byte height, byte flags = 0, byte bits = 2)
        => [(byte)',', left, 0, top, 0, width, 0, height, 0, flags, bits];

    /// <summary>Three-bit codes in one block: clear (4), then pixels, cleared again before the codes grow.</summary>
    private static byte[] Codes(params int[] codes)
    {
        var bytes = new byte[(codes.Length * 3 + 7) / 8];
        for (int i = 0; i < codes.Length; i++)
            for (int b = 0; b < 3; b++)
                if ((codes[i] >> b & 1) != 0) bytes[(3 * i + b) / 8] |= (byte)(1 << (3 * i + b) % 8);
        return [(byte)bytes.Length, .. bytes, 0];
    }

    private static byte[] Gif(params byte[][] parts) => [.. Screen, .. parts.SelectMany(p => p), (byte)';'];

    private static byte[] Pixels(params byte[][] parts) => ImageDecoder.Decode(Gif(parts), "a").Pixels;

    [Fact]
    public void A_frame_smaller_than_the_screen_leaves_colour_0_or_the_transparent_one()
    {
        byte[] frame = [.. Frame(1, 1, 2, 1), .. Codes(4, 1, 2, 5)];
        Assert.Equal([255, 0, 0, 255, 0, 0, 255, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255], Pixels(frame));
        byte[] transparent = [(byte)'!', 0xf9, 4, 1, 0, 0, 3, 0];
        Assert.Equal([255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 255, 0, 0, 0, 255], Pixels(transparent, frame));
    }

    [Fact]
    public void A_frame_larger_than_the_screen_enlarges_it()
        => Assert.Equal(5, ImageDecoder.Decode(Gif(Frame(4, 0, 1, 1), Codes(4, 1, 5)), "a").Width);

    [Fact]
    public void A_frame_may_have_its_own_palette()
        => Assert.Equal([9, 8, 7], Pixels([.. Frame(0, 0, 3, 2, 0x80, 0)[..10], 1, 2, 3, 9, 8, 7, 2], Codes(4, 1, 1, 4, 1, 1, 4, 1, 1, 5))[..3]);

    [Fact]
    public void Interlaced_rows_are_put_in_order()
    {
        byte[] pixels = Pixels(Frame(0, 0, 1, 5, 0x40), Codes(4, 0, 1, 4, 2, 3, 4, 0, 5));
        // rows come as 0, 4, 2, 1, 3: red, green, blue, white, red; the screen is 3 wide
        Assert.Equal([255, 0, 0], pixels[..3]);
        Assert.Equal([255, 255, 255], pixels[9..12]);
        Assert.Equal([0, 0, 255], pixels[18..21]);
        Assert.Equal([255, 0, 0], pixels[27..30]);
        Assert.Equal([0, 255, 0], pixels[36..39]);
    }

    [Fact]
    public void Faults_are_named()
    {
        void Fault(ImageFault fault, string found, params byte[][] parts) => ImageDecoderTests.AssertFault(Gif(parts), fault, found);
        ImageDecoderTests.AssertFault(Screen.AsSpan(0, 15), ImageFault.Truncated, "The file ends before its first frame");
        Fault(ImageFault.Corrupt, "It holds no frame");
        Fault(ImageFault.NoPixels, "Its header claims 0x1 pixels", Frame(0, 0, 0, 1), Codes(4, 1));
        Fault(ImageFault.Corrupt, "Its codes begin with 13 bits", Frame(0, 0, 1, 1, 0, 13), Codes(4, 1));
        Fault(ImageFault.Truncated, "The file ends after 1 of 6 pixels", Frame(0, 0, 3, 2), Codes(4, 1));
        Fault(ImageFault.Truncated, "Its data end after 1 of 6 pixels", Frame(0, 0, 3, 2), Codes(4, 1, 5));
        Fault(ImageFault.Corrupt, "Its data hold a code that was not defined, after 0 pixels", Frame(0, 0, 3, 2), Codes(4, 6, 1, 1));
        Fault(ImageFault.Truncated, "Its frame claims 250x251 pixels, more than its 1 bytes can hold", Frame(0, 0, 250, 251));
    }
}
