using System.Text;
using Peft.Testing;
using Xunit;

namespace Peft.Llava.Tests.Images;

public sealed class ImageDecoderTests
{
    public static IEnumerable<TheoryDataRow<string>> Cases => Goldens.Rows("images", c => c.Kind == "decode");

    public static IEnumerable<TheoryDataRow<string>> OwnCases
        => Goldens.Rows("images", c => c.Kind == "decode" && c.Folder.StartsWith(Goldens.Roots[0], StringComparison.Ordinal));

    public static IEnumerable<TheoryDataRow<string>> BadFiles => Goldens.Rows("images", c => c.Kind == "bad");

    [Theory, MemberData(nameof(Cases)), Trait(Goldens.Trait, "images")]
    public void Pictures_are_decoded_as_the_peer_does(string folder)
    {
        var golden = new GoldenCase(folder);
        var json = golden.Json;
        var got = ImageDecoder.Decode(golden.PathOf(json.GetProperty("picture").GetString()!));
        Assert.Equal((json.GetProperty("width").GetInt32(), json.GetProperty("height").GetInt32()), (got.Width, got.Height));
        var tolerance = json.GetProperty("tolerance");
        AssertNear(ImageGoldens.Bytes(golden, "rgb").Bytes, got.Pixels,
            tolerance.GetProperty("max_levels").GetDouble(), tolerance.GetProperty("mean_levels").GetDouble());
        if (json.GetProperty("lossless").GetBoolean()) Assert.Equal(json.GetProperty("rgb_sha256").GetString(), ImageGoldens.Sha(got.Pixels));
    }

    /// <summary>The lossy formats too come out with the peer's very bytes; the cases' tolerance would allow other decoders.</summary>
    [Theory, MemberData(nameof(OwnCases))]
    public void Pictures_have_the_peers_very_bytes(string folder)
    {
        var golden = new GoldenCase(folder);
        var got = ImageDecoder.Decode(golden.PathOf(golden.Json.GetProperty("picture").GetString()!));
        Assert.Equal(golden.Json.GetProperty("rgb_sha256").GetString(), ImageGoldens.Sha(got.Pixels));
    }

    [Theory, MemberData(nameof(BadFiles)), Trait(Goldens.Trait, "images")]
    public void Damaged_files_are_read_or_refused_as_the_peer_does(string folder)
    {
        var golden = new GoldenCase(folder);
        string path = golden.PathOf(golden.Json.GetProperty("picture").GetString()!);
        if (golden.Json.GetProperty("outcome").GetString() == "error")
        {
            var error = Assert.Throws<ImageDecodeException>(() => ImageDecoder.Decode(path));
            Assert.StartsWith(path, error.Message, StringComparison.Ordinal);
            return;
        }
        var got = ImageDecoder.Decode(path);
        var opened = golden.Json.GetProperty("opened_as").GetProperty("size");
        Assert.Equal((opened[0].GetInt32(), opened[1].GetInt32()), (got.Width, got.Height));
        Assert.Equal(golden.Json.GetProperty("rgb_sha256").GetString(), ImageGoldens.Sha(got.Pixels));
    }

    private static void AssertNear(byte[] expected, byte[] got, double max, double mean)
    {
        Assert.Equal(expected.Length, got.Length);
        int worst = 0;
        long sum = 0;
        for (int i = 0; i < got.Length; i++)
        {
            int d = Math.Abs(expected[i] - got[i]);
            worst = Math.Max(worst, d);
            sum += d;
        }
        double average = (double)sum / got.Length;
        Assert.True(worst <= max && average <= mean, $"differs by at most {worst} (allowed {max}), on average {average:F4} (allowed {mean}).");
    }

    [Fact]
    public void A_picture_may_be_given_as_bytes()
    {
        var golden = Goldens.Cases("images").First(c => c.Kind == "decode");
        string path = golden.PathOf(golden.Json.GetProperty("picture").GetString()!);
        Assert.Equal(ImageDecoder.Decode(path).Pixels, ImageDecoder.Decode(File.ReadAllBytes(path), "picture").Pixels);
    }

    [Fact]
    public void A_missing_file_and_an_unreadable_one_are_named()
    {
        string path = Path.Combine(AppContext.BaseDirectory, "no such folder", "a.jpg");
        var missing = Assert.Throws<ImageDecodeException>(() => ImageDecoder.Decode(path));
        Assert.Equal(ImageFault.Missing, missing.Fault);
        Assert.Equal($"{path}: There is no such file. Check the image folder and the sample's image path.", missing.Message);
        var folder = Assert.Throws<ImageDecodeException>(() => ImageDecoder.Decode(AppContext.BaseDirectory));
        Assert.Equal(ImageFault.Unreadable, folder.Fault);
        Assert.Contains("The file cannot be read (", folder.Message, StringComparison.Ordinal);
        Assert.EndsWith("Check the file's permissions and the disk.", folder.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(ImageFault.DecoderMissing, "a.jpg: Jpeg picture: found. Reference SkiaSharp.NativeAssets.Linux.NoDependencies (Linux), .Win32 or .macOS in the application, "
        + "in SkiaSharp's version; PNG, GIF, BMP and TIFF need no native library.")]
    [InlineData(ImageFault.TooLarge, "a.jpg: Jpeg picture: found. Shrink the picture before training.")]
    [InlineData(ImageFault.Truncated, "a.jpg: Jpeg picture: found. Fetch or export the file again, or leave out the sample.")]
    [InlineData(ImageFault.Unsupported, "a.jpg: Jpeg picture: found. Convert it to PNG or JPEG.")]
    public void Every_fault_has_its_next_step(ImageFault fault, string text)
        => Assert.Equal(text, new ImageDecodeException("a.jpg", ImageFormat.Jpeg, fault, "found").Message);

    public static TheoryData<byte[], ImageFault, string> Foreign => new()
    {
        { [], ImageFault.Empty, "a: The file is empty. Fetch or export the file again, or leave out the sample." },
        { "<html>\n<body>404</body></html>"u8.ToArray(), ImageFault.NotAnImage, "a: The content is no picture; it begins with '<html> <body>404</body><'. Fetch" },
        { [1, 2, 0xfe], ImageFault.NotAnImage, "a: The content is no picture; it begins with 0102FE. Fetch" },
        { "<?xml version='1.0'?><svg width='9'/>"u8.ToArray(), ImageFault.Unsupported, "a: The content is an SVG drawing, which is not decoded. Convert it to PNG or JPEG." },
        { "\0\0\0 ftypavif"u8.ToArray(), ImageFault.Unsupported, "an AVIF picture" },
        { "\0\0\0 ftypheic"u8.ToArray(), ImageFault.Unsupported, "a HEIF picture" },
        { "\0\0\0 ftypisom"u8.ToArray(), ImageFault.Unsupported, "a video" },
        { "8BPS"u8.ToArray(), ImageFault.Unsupported, "a Photoshop document" },
        { "%PDF-1.7"u8.ToArray(), ImageFault.Unsupported, "a PDF document" },
        { [0, 0, 1, 0, 1, 0], ImageFault.Unsupported, "a Windows icon" },
        { [0xff, 0x0a, 3], ImageFault.Unsupported, "a JPEG XL picture" },
        { "\0\0\0\x0cjP  "u8.ToArray(), ImageFault.Unsupported, "a JPEG 2000 picture" },
    };

    [Theory, MemberData(nameof(Foreign))]
    public void What_is_no_picture_is_called_by_its_name(byte[] data, ImageFault fault, string text)
    {
        var error = Assert.Throws<ImageDecodeException>(() => ImageDecoder.Decode(data, "a"));
        Assert.Equal(fault, error.Fault);
        Assert.Null(error.Format);
        Assert.Contains(text, error.Message, StringComparison.Ordinal);
    }

    /// <summary>Seeded damage to every picture there is: each try ends in a picture or in the one exception.</summary>
    [Fact]
    public void Damage_gives_a_picture_or_the_typed_exception()
    {
        var random = new Random(20240607);
        int pictures = 0, errors = 0;
        foreach (var golden in Goldens.Cases("images").Where(c => c.Kind is "decode" or "bad"))
        {
            byte[] whole = File.ReadAllBytes(golden.PathOf(golden.Json.GetProperty("picture").GetString()!));
            for (int round = 0; round < 40; round++)
            {
                byte[] data = Damage(random, whole);
                try
                {
                    var image = ImageDecoder.Decode(data, "damaged");
                    Assert.Equal(3 * image.Width * image.Height, image.Pixels.Length);
                    pictures++;
                }
                catch (ImageDecodeException)
                {
                    errors++;
                }
                catch (Exception error) when (error is not Xunit.Sdk.XunitException)
                {
                    Assert.Fail($"{golden.Name}, round {round}: {error}");
                }
            }
        }
        Assert.True(pictures > 300 && errors > 300, $"{pictures} pictures and {errors} errors: the damage is too weak or too strong to test anything.");
    }

    private static byte[] Damage(Random random, byte[] whole)
    {
        byte[] data = (byte[])whole.Clone();
        if (data.Length == 0) return data;
        switch (random.Next(4))
        {
            case 0:
                return data[..random.Next(data.Length)];
            case 1:                                                       // a span overwritten
                int start = random.Next(data.Length), length = Math.Min(data.Length - start, random.Next(1, 20));
                random.NextBytes(data.AsSpan(start, length));
                return data;
            case 2:                                                       // near the front, where headers are
                for (int i = random.Next(1, 4); i > 0; i--) data[random.Next(Math.Min(data.Length, 90))] = (byte)random.Next(256);
                return data;
            default:
                for (int i = random.Next(1, 6); i > 0; i--) data[random.Next(data.Length)] ^= (byte)(1 << random.Next(8));
                return data;
        }
    }

    [Fact]
    public void A_file_larger_than_any_array_is_refused_unread()
    {
        string path = Path.GetTempFileName();
        try
        {
            using (var file = File.OpenWrite(path)) file.SetLength(Array.MaxLength + 1L);       // a hole: it takes no room
            var e = Assert.Throws<ImageDecodeException>(() => ImageDecoder.Decode(path));
            Assert.Equal((ImageFault.TooLarge, "The file has 2147483592 bytes"), (e.Fault, e.Found));
            Assert.Contains("The file has 2147483592 bytes. ", e.Message, StringComparison.Ordinal);
        }
        finally
        {
            File.Delete(path);
        }
    }

    internal static void AssertFault(ReadOnlySpan<byte> data, ImageFault fault, string found)
    {
        byte[] copy = data.ToArray();
        var error = Assert.Throws<ImageDecodeException>(() => ImageDecoder.Decode(copy, "a"));
        Assert.True(error.Fault == fault && error.Found == found, $"expected {fault}: '{found}', got {error.Fault}: '{error.Found}' ({Encoding.ASCII.GetString(copy[..4])})");
        Assert.Contains($"{error.Format} picture: {found}. ", error.Message, StringComparison.Ordinal);
    }
}
