using static TorchSharp.torch;

namespace Peft.Benchmarks;

/// <summary>The matrix-product peak of this process: what all figures are ratios to.</summary>
internal static class GemmPeak
{
    /// <summary>Best of at least a second of <c>linear</c> 512x4096x4096.</summary>
    /// <returns>GFLOP/s.</returns>
    public static double Measure(ScalarType dtype)
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var x = randn(512, 4096).to(dtype);
        var w = randn(4096, 4096).to(dtype);
        double best = double.MaxValue;
        double start = Clock.Now();
        do
        {
            using var inner = NewDisposeScope();
            double one = Clock.Now();
            nn.functional.linear(x, w);
            best = Math.Min(best, Clock.Now() - one);
        }
        while (Clock.Now() - start < 1);
        return 2.0 * 512 * 4096 * 4096 / best / 1e9;
    }
}
