using System.Text.Json;
using Peft.Llava;
using TorchSharp;
using static TorchSharp.torch;

namespace VisionClassifier;

/// <summary>The emoji of one drawing style and split, with the number of each one's group.</summary>
/// <param name="Pixels">F32 (N, 3, 32, 32), -1 to 1.</param>
/// <param name="Groups">I64 (N).</param>
internal sealed record Pictures(Tensor Pixels, Tensor Groups) : IDisposable
{
    public static IReadOnlyList<string> GroupNames { get; } = ["activities", "animals and nature", "food and drink", "travel and places"];

    public long Count => Pixels.shape[0];

    public static Pictures Read(string data, string style, string split)
    {
        using var scope = NewDisposeScope();
        using var json = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(data, "emoji.json")));
        var emoji = json.RootElement.EnumerateArray().Where(e => e.GetProperty("split").GetString() == split).ToList();
        var pixels = emoji.Select(e => Small(ImageDecoder.Decode(Path.Combine(data, "images", style, e.GetProperty("code").GetString() + ".png")))).ToList();
        long[] groups = [.. emoji.Select(e => (long)GroupNames.ToList().IndexOf(e.GetProperty("group").GetString()!))];
        return new Pictures(stack(pixels).DetachFromDisposeScope(), tensor(groups).DetachFromDisposeScope());
    }

    /// <summary>The chosen rows, half of them mirrored and each moved by up to two pixels.</summary>
    public (Tensor Pixels, Tensor Groups) Sample(Tensor rows)
    {
        using var scope = NewDisposeScope();
        var chosen = Pixels.index_select(0, rows);
        chosen = where(rand(rows.shape[0], 1, 1, 1) < 0.5, chosen.flip(3), chosen);
        var padded = nn.functional.pad(chosen, [2, 2, 2, 2], value: 1);
        var moved = padded.narrow(2, (long)randint(5, 1).item<long>(), Pixels.shape[2]).narrow(3, (long)randint(5, 1).item<long>(), Pixels.shape[3]);
        return (moved.MoveToOuterDisposeScope(), Groups.index_select(0, rows).MoveToOuterDisposeScope());
    }

    public void Dispose()
    {
        Pixels.Dispose();
        Groups.Dispose();
    }

    private static Tensor Small(RgbImage image)
    {
        var values = tensor(image.Pixels, [image.Height, image.Width, 3]).to(ScalarType.Float32).permute(2, 0, 1);
        return nn.functional.avg_pool2d(values.unsqueeze(0), image.Height / 32).squeeze(0) / 127.5 - 1;
    }
}
