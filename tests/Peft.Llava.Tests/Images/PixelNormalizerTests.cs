using Peft.Testing;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Images;

public sealed class PixelNormalizerTests
{
    public static IEnumerable<TheoryDataRow<string>> Cases => Goldens.Rows("images", c => c.Kind == "normalize");

    [Theory, MemberData(nameof(Cases)), Trait(Goldens.Trait, "images")]
    public void Every_level_of_every_channel_has_the_peers_bits(string folder)
    {
        var golden = new GoldenCase(folder);
        double[] mean = ImageGoldens.Numbers(golden.Json.GetProperty("mean")), std = ImageGoldens.Numbers(golden.Json.GetProperty("std"));
        var normalizer = new PixelNormalizer(golden.Json.GetProperty("rescale_factor").GetDouble(), mean, std);
        using var reader = golden.Tensors(golden.Json.GetProperty("expected").GetString()!);
        using var table = reader.Load("lut_old");
        float[] expected = table.data<float>().ToArray();
        for (int level = 0; level < 256; level++)
            for (int channel = 0; channel < 3; channel++)
                Assert.Equal(BitConverter.SingleToInt32Bits(expected[3 * level + channel]), BitConverter.SingleToInt32Bits(normalizer[channel, (byte)level]));
    }

    [Fact]
    public void Rescaling_and_normalisation_can_each_be_left_out()
    {
        Assert.Equal(200f, new PixelNormalizer(null, null, null)[1, 200]);
        Assert.Equal((float)(200 * 0.5), new PixelNormalizer(0.5, null, null)[1, 200]);
        Assert.Equal((200f - 3f) / 7f, new PixelNormalizer(null, [1, 3, 5], [2, 7, 9])[1, 200]);
    }
}
