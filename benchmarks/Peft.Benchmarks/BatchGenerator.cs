using Peft.Llava;
using static TorchSharp.torch;

namespace Peft.Benchmarks;

/// <summary>The batches that every implementation under comparison trains on: made by a formula, so that no file is needed.</summary>
internal sealed class BatchGenerator(BenchmarkSize size, ulong seed = 1)
{
    private static readonly float[] Mean = [0.48145466f, 0.4578275f, 0.40821073f];
    private static readonly float[] Deviation = [0.26862954f, 0.26130258f, 0.27577711f];

    /// <summary>Samples of a batch, ids with one image id per image token, unpadded.</summary>
    public List<(long[] Ids, long[] Labels)> Samples(int step, int batch)
        => [.. Enumerable.Range(0, batch).Select(i => Sample(step * batch + i))];

    /// <summary>A training batch.</summary>
    /// <param name="builder">The model's batch builder.</param>
    /// <param name="step">0-based; warm-up steps count.</param>
    /// <param name="batch">Samples.</param>
    public LlavaBatch Batch(LlavaBatchBuilder builder, int step, int batch)
    {
        using var scope = NewDisposeScope();
        var samples = Samples(step, batch).Select((s, i) =>
        {
            int index = step * batch + i;
            var tiles = new ImageTiles(Pixels(index), new ImageSize(size.Vision.Image, size.Vision.Image));
            return new LlavaBatchSample(index.ToString(), s.Ids, s.Labels, [tiles]);
        }).ToList();
        return builder.Build(samples);
    }

    /// <summary>A prompt for generation: BOS, 19 words, the image, 20 words.</summary>
    public LlavaBatch Prompt(LlavaBatchBuilder builder, int batch)
    {
        using var scope = NewDisposeScope();
        var samples = Enumerable.Range(0, batch).Select(index =>
        {
            var draw = new Draws(seed, index);
            long[] ids = [1, .. Words(draw, 19), .. Image, .. Words(draw, 20)];
            return new LlavaBatchSample(index.ToString(), ids, null,
                [new ImageTiles(Pixels(index), new ImageSize(size.Vision.Image, size.Vision.Image))]);
        }).ToList();
        return builder.Build(samples);
    }

    /// <summary>FNV-1a over the padded rows of ids and of labels, to prove that batches are the same everywhere.</summary>
    public (ulong Ids, ulong Labels) Checksums(int step, int batch)
    {
        var samples = Samples(step, batch);
        int longest = samples.Max(s => s.Ids.Length);
        ulong ids = 0xCBF29CE484222325, labels = ids;
        foreach (var (id, label) in samples)
        {
            for (int i = 0; i < longest; i++)
            {
                ids = unchecked((ids ^ (ulong)(i < id.Length ? id[i] : 0)) * 0x100000001B3);
                labels = unchecked((labels ^ (ulong)(i < label.Length ? label[i] : -100)) * 0x100000001B3);
            }
        }
        return (ids, labels);
    }

    private IEnumerable<long> Image => Enumerable.Repeat((long)size.Text.Vocab - 1, size.Vision.Patches);

    private IEnumerable<long> Words(Draws draw, int count) => Enumerable.Range(0, count).Select(_ => 3 + draw.Below(size.Text.Vocab - 4)).ToArray();

    private (long[] Ids, long[] Labels) Sample(int index)
    {
        var draw = new Draws(seed, index);
        int prompt = 50 + (int)draw.Below(21), answer = 20 + (int)draw.Below(281);
        long[] ids = [1, .. Words(draw, 35), .. Image, .. Words(draw, prompt - 36), .. Words(draw, answer - 1), 2];
        var labels = new long[ids.Length];
        for (int i = 0; i < ids.Length; i++) labels[i] = i < ids.Length - answer ? -100 : ids[i];
        return (ids, labels);
    }

    private Tensor Pixels(int index)
    {
        int side = size.Vision.Image;
        var values = new float[3 * side * side];
        for (int i = 0; i < values.Length; i++)
        {
            ulong x = ((ulong)i * 2654435761 + (ulong)index * 40503) % (1ul << 32);
            int channel = i / (side * side);
            values[i] = ((x >> 24) / 255f - Mean[channel]) / Deviation[channel];
        }
        return tensor(values, [1, 3, side, side]);
    }

    private sealed class Draws
    {
        private ulong _x;

        public Draws(ulong seed, int index)
        {
            _x = unchecked(seed ^ (((ulong)index + 1) * 0x9E3779B97F4A7C15));
            for (int i = 0; i < 4; i++) Next();
        }

        public long Below(long n) => (long)(Next() % (ulong)n);

        private ulong Next()
        {
            _x = unchecked(_x * 6364136223846793005 + 1442695040888963407);
            return _x >> 33;
        }
    }
}
