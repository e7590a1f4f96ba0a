using Peft.Llava;
using static TorchSharp.torch;

namespace Peft.MemoryProbe;

/// <summary>Samples of one image, with as many tokens and labels as the case says.</summary>
internal sealed class ProbeData(ProbeCase probe) : ITrainingData
{
    private readonly LlavaConfig _config = probe.Config;

    public int Count => 64;

    public IReadOnlyList<int> ModalityLengths => [.. Enumerable.Repeat(1, Count)];

    public LlavaBatch Batch(IReadOnlyList<int> indices)
    {
        using var scope = NewDisposeScope();
        return new LlavaBatchBuilder(_config).Build([.. indices.Select(Sample)]);
    }

    private LlavaBatchSample Sample(int index)
    {
        int words = probe.Tokens - _config.FeaturesPerTile;
        long[] ids = [1, LlavaBatchBuilder.ImagePlaceholder, .. Enumerable.Range(0, words - 1).Select(i => 3L + (i * 7 + index) % (probe.Vocabulary - 3))];
        long[] labels = [.. ids.Select((id, i) => i < ids.Length - probe.Supervised ? LlavaBatchBuilder.IgnoredLabel : id)];
        var pixels = randn([1, 3, probe.ImageSize, probe.ImageSize]);
        return new LlavaBatchSample($"{index}", ids, labels, [new ImageTiles(pixels, new ImageSize(probe.ImageSize, probe.ImageSize))]);
    }
}
