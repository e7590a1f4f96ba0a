using static TorchSharp.torch;

namespace Peft.Benchmarks;

/// <summary>The matrix-product peaks of this process, in GFLOP/s: what all figures are ratios to.</summary>
/// <param name="Bf16">Of libtorch's bfloat16 product.</param>
/// <param name="Fp32">Of libtorch's float32 product.</param>
internal readonly record struct GemmPeak(double Bf16, double Fp32)
{
    // A product that takes longer than this for an eighth of the rows is not worth a second of repeats.
    private const double SlowSeconds = 0.1;

    /// <summary>The faster of the two: shares of the peak refer to it.</summary>
    public double Faster => Math.Max(Bf16, Fp32);

    /// <summary>Measures both.</summary>
    public static GemmPeak Measure() => new(Measure(ScalarType.BFloat16), Measure(ScalarType.Float32));

    /// <summary>Best of at least a second of <c>linear</c> 512x4096x4096; where the product is slow, a single one of 64 rows.</summary>
    private static double Measure(ScalarType dtype)
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var x = randn(512, 4096).to(dtype);
        var w = randn(4096, 4096).to(dtype);
        double best = Seconds(x.narrow(0, 0, 64), w);
        if (best > SlowSeconds) return Rate(64, best);
        best = double.MaxValue;
        double start = Clock.Now();
        do best = Math.Min(best, Seconds(x, w));
        while (Clock.Now() - start < 1);
        return Rate(512, best);
    }

    private static double Seconds(Tensor x, Tensor w)
    {
        using var scope = NewDisposeScope();
        double start = Clock.Now();
        nn.functional.linear(x, w);
        return Clock.Now() - start;
    }

    private static double Rate(int rows, double seconds) => 2.0 * rows * 4096 * 4096 / seconds / 1e9;
}
