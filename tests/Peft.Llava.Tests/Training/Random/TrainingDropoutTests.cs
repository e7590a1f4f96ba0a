using Peft.Testing;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Training;

public sealed class TrainingDropoutTests
{
    private static float[] Mask(TrainingDropout source, string module)
    {
        using var scope = NewDisposeScope();
        var x = ones([37]);
        return source.Draw(module, x, 0.4).Apply(x).data<float>().ToArray();
    }

    [Fact]
    public void A_mask_is_a_function_of_its_place_alone()
    {
        var masks = new List<float[]>();
        foreach (var (seed, rank, step, micro, module) in new[]
        {
            (5L, 0, 3, 1, "layers.0.q_proj"), (6, 0, 3, 1, "layers.0.q_proj"), (5, 1, 3, 1, "layers.0.q_proj"), (5, 0, 4, 1, "layers.0.q_proj"),
            (5, 0, 3, 2, "layers.0.q_proj"), (5, 0, 3, 1, "layers.1.q_proj"), (5, 0, 1, 3, "layers.0.q_proj"), (-5, 0, 3, 1, "layers.0.q_proj"),
        })
        {
            var source = new TrainingDropout(seed, rank);
            source.Begin(step, micro);
            masks.Add(Mask(source, module));
            // Whatever was drawn before, elsewhere.
            var again = new TrainingDropout(seed, rank);
            again.Begin(9, 9);
            Mask(again, module);
            again.Begin(step, micro);
            Mask(again, "layers.7.up_proj");
            Assert.Equal(masks[^1], Mask(again, module));
            // A second adapter of the layer, and the second run under gradient checkpointing.
            float[] second = Mask(again, module);
            Assert.NotEqual(masks[^1], second);
            again.Replay();
            Assert.Equal(masks[^1], Mask(again, module));
            Assert.Equal(second, Mask(again, module));
        }
        Assert.Equal(masks.Count, masks.Select(m => string.Join(' ', m)).Distinct().Count());
    }

    [Fact]
    public void Elements_are_dropped_with_the_probability_over_many_places()
    {
        var source = new TrainingDropout(11);
        int kept = 0, pairs = 0;
        float[]? last = null;
        for (int step = 1; step <= 500; step++)
        {
            source.Begin(step, 0);
            float[] mask = Mask(source, "m");
            kept += mask.Count(v => v != 0);
            if (last is not null) pairs += mask.Zip(last).Count(p => p.First != 0 && p.Second != 0);
            last = mask;
        }
        // 0.6 of 18500, and 0.36 of neighbouring steps' pairs, within 5 standard deviations.
        Assert.InRange(kept / 18500.0, 0.6 - 0.018, 0.6 + 0.018);
        Assert.InRange(pairs / (499 * 37.0), 0.36 - 0.025, 0.36 + 0.025);
    }
}
