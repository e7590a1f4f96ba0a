using Peft.Testing;
using Xunit;

namespace Peft.Llava.Tests.Images;

public sealed class PilResizeTests
{
    public static IEnumerable<TheoryDataRow<string>> Cases => Goldens.Rows("images", c => c.Kind == "resize");

    [Theory, MemberData(nameof(Cases)), Trait(Goldens.Trait, "images")]
    public void Resize_is_byte_equal_in_both_pass_orders(string folder)
    {
        var golden = new GoldenCase(folder);
        var input = ImageGoldens.Picture(golden, "inputs", "rgb");
        foreach (var output in golden.Json.GetProperty("outputs").EnumerateArray())
        {
            string name = output.GetProperty("tensor").GetString()!;
            var size = new ImageSize(output.GetProperty("width").GetInt32(), output.GetProperty("height").GetInt32());
            var filter = Enum.Parse<ResizeFilter>(output.GetProperty("filter").GetString()!, ignoreCase: true);
            var current = PilResize.Resize(input, size, filter);
            ImageGoldens.AssertBytes(ImageGoldens.Bytes(golden, name).Bytes, current.Pixels, name);
            Assert.Equal(output.GetProperty("sha256").GetString(), ImageGoldens.Sha(current.Pixels));
            var older = PilResize.Resize(input, size, filter, PassOrder.HorizontalFirst);
            if (!output.GetProperty("older_equals").GetBoolean())
                ImageGoldens.AssertBytes(ImageGoldens.Bytes(golden, "older_" + name).Bytes, older.Pixels, "older " + name);
            Assert.Equal(output.GetProperty("older_sha256").GetString(), ImageGoldens.Sha(older.Pixels));
        }
    }

    /// <summary>Every part of the result is what the whole one holds there, for sizes around the vector width too.</summary>
    [Fact]
    public void A_window_equals_the_same_part_of_the_whole()
    {
        var random = new Random(11);
        for (int round = 0; round < 300; round++)
        {
            var image = Noise(random, random.Next(1, 70), random.Next(1, 70));
            var size = new ImageSize(random.Next(1, 70), random.Next(1, 70));
            if (round % 7 == 0) size = size with { Width = image.Width };
            if (round % 5 == 0) size = size with { Height = image.Height };
            var filter = (ResizeFilter)random.Next(6);
            var order = (PassOrder)random.Next(2);
            var whole = PilResize.Resize(image, size, filter, order);
            int x = random.Next(size.Width), y = random.Next(size.Height);
            var window = new ImageWindow(x, y, random.Next(1, size.Width - x + 1), random.Next(1, size.Height - y + 1));
            int stride = 3 * window.Width + random.Next(4);
            byte[] part = new byte[stride * (window.Height - 1) + 3 * window.Width];
            PilResize.ResizeWindow(image, size, window, part, stride, filter, order);
            for (int row = 0; row < window.Height; row++)
                ImageGoldens.AssertBytes(whole.Row(y + row).Slice(3 * x, 3 * window.Width), part.AsSpan(stride * row, 3 * window.Width),
                    $"round {round}, {image.Size} to {size}, {filter}, {window}, row {row}");
        }
    }

    [Fact]
    public void A_window_outside_or_a_small_destination_is_refused()
    {
        var image = Noise(new Random(3), 5, 7);
        var outside = Assert.Throws<ArgumentOutOfRangeException>(
            () => PilResize.ResizeWindow(image, new ImageSize(4, 4), new ImageWindow(2, 0, 3, 4), new byte[48], 12));
        Assert.Contains("The window lies outside the resized picture of 4x4.", outside.Message, StringComparison.Ordinal);
        var small = Assert.Throws<ArgumentException>(
            () => PilResize.ResizeWindow(image, new ImageSize(4, 4), new ImageWindow(0, 0, 4, 4), new byte[47], 12));
        Assert.Contains("The destination is too small for 4x4 pixels with a stride of 12.", small.Message, StringComparison.Ordinal);
        var wrong = Assert.Throws<ArgumentException>(() => new RgbImage(2, 2, new byte[11]));
        Assert.Contains("A picture of 2x2 has 12 bytes of RGB, not 11.", wrong.Message, StringComparison.Ordinal);
        var unknown = Assert.Throws<ArgumentOutOfRangeException>(() => PilResize.Resize(image, new ImageSize(4, 4), (ResizeFilter)9));
        Assert.Contains("This filter has no weights.", unknown.Message, StringComparison.Ordinal);
    }

    internal static RgbImage Noise(Random random, int width, int height)
    {
        byte[] pixels = new byte[3 * width * height];
        random.NextBytes(pixels);
        return new RgbImage(width, height, pixels);
    }
}
