using Peft.Llava.Tests.Data;
using Peft.Testing;
using Xunit;

namespace Peft.Llava.Tests.Images;

public sealed class ImageTraitsTests
{
    public static IEnumerable<TheoryDataRow<string>> Pictures() => Goldens.Rows("images", c => c.Kind == "decode");

    [Theory, Trait(Goldens.Trait, "images"), MemberData(nameof(Pictures))]
    public void What_Pillow_wrote_is_recognised(string folder)
    {
        var golden = new GoldenCase(folder);
        byte[] data = File.ReadAllBytes(golden.PathOf(golden.Json.GetProperty("picture").GetString()!));
        int at = golden.Name.IndexOf("-exif", StringComparison.Ordinal);
        bool turned = at >= 0 && !golden.Name.Contains("tiff", StringComparison.Ordinal);
        var expected = new ImageTraits(golden.Name.Contains("16", StringComparison.Ordinal) ? 16 : 8,
            golden.Name.Contains("cmyk", StringComparison.Ordinal), turned ? golden.Name[at + 5] - '0' : 1);
        var got = ImageTraits.Read(data);
        Assert.Equal(expected, golden.Name.Contains("tiff", StringComparison.Ordinal) && expected.BitsPerSample == 8 ? got with { BitsPerSample = 8 } : got);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void An_orientation_is_found_in_each_container(bool little)
    {
        byte[] exif = PictureBytes.Exif(6, little);
        Assert.Equal(6, ImageTraits.Read(PictureBytes.Png(8, 5, 3, PictureBytes.Chunk("eXIf", exif))).Orientation);
        Assert.Equal(6, ImageTraits.Read([0xff, 0xd8, 0xff, .. PictureBytes.App1(exif), 0xff, 0xd9]).Orientation);
        Assert.Equal(6, ImageTraits.Read(PictureBytes.WebP(exif)).Orientation);
        Assert.Equal(6, ImageTraits.Read(PictureBytes.WebP([.. "Exif\0\0"u8, .. exif])).Orientation);
        Assert.Equal(1, ImageTraits.Read(PictureBytes.WebP(PictureBytes.Exif(9, little))).Orientation);
    }

    [Fact]
    public void Bits_and_inks_are_found()
    {
        Assert.Equal(new ImageTraits(16, false, 1), ImageTraits.Read(PictureBytes.Png(16)));
        Assert.Equal(new ImageTraits(8, true, 1), ImageTraits.Read(PictureBytes.CmykTiff()));
        Assert.Equal(2, ImageDecoder.Decode(PictureBytes.CmykTiff(), "a").Width);
        Assert.Equal(new ImageTraits(8, true, 1), ImageDecoder.Decode(PictureBytes.CmykTiff(), "a").Traits);
        Assert.Null(new RgbImage(2, 3).Traits);
        Assert.Equal(5, ImageDecoder.Decode(PictureBytes.Png(16), "a").Width);
    }

    [Fact]
    public void A_header_that_is_cut_or_overwritten_anywhere_harms_nothing()
    {
        byte[] exif = PictureBytes.Exif(3, little: false);
        var random = new Random(5);
        byte[][] whole = [PictureBytes.Png(16, 5, 3, PictureBytes.Chunk("eXIf", exif)), [0xff, 0xd8, .. PictureBytes.App1(exif), 0xff, 0xd9], PictureBytes.WebP(exif), PictureBytes.CmykTiff()];
        foreach (byte[] data in whole)
        {
            for (int length = 0; length < data.Length; length++) Assert.InRange(ImageTraits.Read(data.AsSpan(0, length)).Orientation, 1, 8);
            for (int round = 0; round < 2000; round++)
            {
                byte[] damaged = [.. data];
                for (int i = 0; i < 3; i++) damaged[random.Next(4, damaged.Length)] = (byte)random.Next(256);
                Assert.InRange(ImageTraits.Read(damaged).Orientation, 1, 8);
            }
        }
    }
}
