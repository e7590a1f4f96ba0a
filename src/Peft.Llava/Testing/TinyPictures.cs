namespace Peft.Llava;

/// <summary>Plain pictures that are made from their name, <c>tiny-3-red.png</c>, and the samples that ask for their colour.</summary>
internal static class TinyPictures
{
    private const string Prefix = "tiny-";
    private const int Shades = 5;

    private static readonly (string Name, byte R, byte G, byte B)[] Colors =
        [("red", 200, 30, 30), ("green", 30, 170, 40), ("blue", 30, 50, 200), ("yellow", 220, 200, 30)];

    public static LlavaSample Sample(int index)
    {
        string color = Colors[index % Colors.Length].Name;
        return new LlavaSample(index, $"tiny-{index}", [$"{Prefix}{index}-{color}.png"],
            [new ConversationTurn("human", "<image>\nWhat color is this picture?"), new ConversationTurn("gpt", color)]);
    }

    /// <summary>A picture of ours by its name; any other file is decoded.</summary>
    public static RgbImage Read(string path)
    {
        string[] parts = Path.GetFileNameWithoutExtension(path).Split('-');
        if (!Path.GetFileName(path).StartsWith(Prefix, StringComparison.Ordinal) || parts.Length != 3 || !int.TryParse(parts[1], out int index))
            return ImageDecoder.Decode(path);
        var (_, r, g, b) = Colors[index % Colors.Length];
        // Odd sizes and several shades, so that padding and resizing have something to do.
        int width = 20 + index % 7, height = 15 + index % 11, shade = index / Colors.Length % Shades * 5;
        var pixels = new byte[width * height * 3];
        for (int i = 0; i < pixels.Length; i += 3)
        {
            pixels[i] = (byte)(r + shade);
            pixels[i + 1] = (byte)(g + shade);
            pixels[i + 2] = (byte)(b + shade);
        }
        return new RgbImage(width, height, pixels);
    }
}
