namespace Peft.Benchmarks;

/// <summary>Floating-point operations of a LoRA training step that the model needs; a multiply-add is two.</summary>
internal static class Flops
{
    /// <summary>The sum over all parts for the given samples.</summary>
    /// <param name="size">The model.</param>
    /// <param name="rank">r.</param>
    /// <param name="lengths">Tokens of each sample, image tokens included, padding not.</param>
    /// <param name="images">Pictures.</param>
    public static double Training(BenchmarkSize size, int rank, IReadOnlyList<int> lengths, int images)
    {
        double h = size.Text.Hidden, f = size.Text.Intermediate, layers = size.Text.Layers, vocab = size.Text.Vocab, r = rank;
        double hv = size.Vision.Hidden, fv = size.Vision.Intermediate, lv = size.Vision.Layers, np = size.Vision.Patches, p = size.Vision.Patch;
        double tokens = lengths.Sum();
        double frozen = layers * (4 * h * h + 3 * h * f);
        double adapter = layers * (4 * 2 * r * h + 3 * r * (h + f));
        double text = 4 * frozen * tokens;
        double head = 4 * h * vocab * tokens;
        double lora = 6 * adapter * tokens;
        double attention = 3 * layers * lengths.Sum(n => 2 * h * n * (n + 1.0));
        double projector = images * np * (4 * hv * h + 6 * h * h);
        double vision = images * (6 * p * p * hv * np
            + (lv - 1) * (2 * (np + 1) * (4 * hv * hv + 2 * hv * fv) + 4 * (np + 1) * (np + 1) * hv));
        return text + head + lora + attention + projector + vision;
    }
}
