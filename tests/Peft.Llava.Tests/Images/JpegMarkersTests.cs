using Peft.Testing;
using Xunit;

namespace Peft.Llava.Tests.Images;

public sealed class JpegMarkersTests
{
    private static byte[] Whole()
    {
        var golden = Goldens.Cases("images").First(c => c.Name == "decode-jpeg-444");
        return File.ReadAllBytes(golden.PathOf(golden.Json.GetProperty("picture").GetString()!));
    }

    /// <summary>The place of a segment's marker.</summary>
    private static int Find(byte[] data, byte marker) => data.AsSpan().IndexOf((ReadOnlySpan<byte>)[0xff, marker]);

    [Fact]
    public void Fill_bytes_and_bytes_between_segments_do_no_harm()
    {
        byte[] data = Whole();
        int at = Find(data, 0xdb);
        var plain = ImageDecoder.Decode(data, "a");
        Assert.Equal(plain.Pixels, ImageDecoder.Decode([.. data[..at], 0xff, 0xff, .. data[at..]], "a").Pixels);
        Assert.Equal(plain.Pixels, ImageDecoder.Decode([.. data, 0xff, 0xda, 7], "a").Pixels);
    }

    [Fact]
    public void Faults_are_named()
    {
        static void Fault(byte[] data, ImageFault fault, string found) => ImageDecoderTests.AssertFault(data, fault, found);
        byte[] whole = Whole();
        int frame = Find(whole, 0xc0), scan = Find(whole, 0xda);
        byte[] With(int at, params byte[] bytes)
        {
            byte[] copy = (byte[])whole.Clone();
            bytes.CopyTo(copy, at);
            return copy;
        }
        Fault(whole[..^2], ImageFault.Truncated, "The file ends without its end marker");
        Fault(whole[..^1], ImageFault.Truncated, "The file ends without its end marker");
        Fault(whole[..scan], ImageFault.Truncated, "The file ends within its header");
        Fault(whole[..(scan + 3)], ImageFault.Truncated, "The file ends within its header");
        Fault([.. whole[..scan], 0xff, 0xd9], ImageFault.Corrupt, "It ends without a scan");
        Fault(With(frame + 2, 0, 1), ImageFault.Corrupt, "The segment of marker FFC0 claims 1 bytes");
        Fault(With(frame + 2, 0, 7), ImageFault.Corrupt, "Its frame header is too short");
        Fault(With(frame + 4, 12), ImageFault.Unsupported, "It has 12 bits per sample");
        Fault(With(frame + 9, 2), ImageFault.Unsupported, "It has 2 components");
        Fault(With(frame + 5, 0, 0), ImageFault.NoPixels, "Its header claims 131x0 pixels");
        Fault(With(frame + 5, 0xff, 0xff, 0xff, 0xff), ImageFault.TooLarge, "Its header claims 65535x65535 pixels, more than 178956970");
        Fault(With(frame + 5, 0x30, 0, 0x30, 0), ImageFault.Truncated, $"Its header claims 12288x12288 pixels, more than its {whole.Length} bytes can hold");
        Fault([.. whole[..frame], .. whole[(frame + 19)..]], ImageFault.Corrupt, "Its header cannot be read");
    }

    [Fact]
    public void A_webp_cut_short_or_damaged_is_refused()
    {
        var golden = Goldens.Cases("images").First(c => c.Name == "decode-webp-lossless");
        byte[] whole = File.ReadAllBytes(golden.PathOf(golden.Json.GetProperty("picture").GetString()!));
        ImageDecoderTests.AssertFault(whole.AsSpan(0, whole.Length / 2), ImageFault.Truncated, "The file is shorter than its header says");
        byte[] half = whole[..(whole.Length / 2 & ~1)];
        BitConverter.TryWriteBytes(half.AsSpan(4), half.Length - 8);
        BitConverter.TryWriteBytes(half.AsSpan(16), half.Length - 20);
        ImageDecoderTests.AssertFault(half, ImageFault.Corrupt, "Its data cannot be decoded (InvalidInput)");
        byte[] head = [.. whole[..4], 8, 0, 0, 0, .. whole[8..16]];
        ImageDecoderTests.AssertFault(head, ImageFault.Corrupt, "Its header cannot be read");
        for (int i = 40; i < whole.Length; i++) whole[i] = 0xff;
        ImageDecoderTests.AssertFault(whole, ImageFault.Corrupt, "Its data cannot be decoded (InvalidInput)");
    }
}
