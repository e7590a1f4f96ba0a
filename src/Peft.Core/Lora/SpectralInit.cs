using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>The inits that look at the base weight: PiSSA, OLoRA and LoftQ, which change it, and the orthogonal one, which doesn't.</summary>
internal static class SpectralInit
{
    /// <summary>The factors of a new adapter; the base weight is overwritten where the init wants it.</summary>
    /// <param name="layer">The layer.</param>
    /// <param name="config">The adapter's settings.</param>
    /// <param name="target">Its rank here.</param>
    /// <param name="options">Carries LoftQ's quantiser.</param>
    /// <returns>A (R, in) and B (out, R), float32, in the current dispose scope.</returns>
    public static (Tensor A, Tensor B) Factors(LoraLinear layer, LoraConfig config, PlannedTarget target, AdapterOptions options)
    {
        long r = target.Rank;
        if (config.Init == LoraInit.Orthogonal) return Orthogonal(r, target.InFeatures, target.OutFeatures);
        var weight = layer.BaseWeight(ScalarType.Float32).MoveToCurrent();
        if (config.Init == LoraInit.Loftq) return Loftq(layer, weight, r, config.Loftq ?? new LoftqSettings(), options);
        var (a, b) = config.Init == LoraInit.Olora ? Olora(weight, r) : Pissa(weight, r, config.Init.PissaIterations, target.Scaling);
        layer.OverwriteBase(weight - b.matmul(a) * target.Scaling);
        return (a, b);
    }

    // Meng et al. 2024. The singular values are divided by the scaling, so that scaling * B A is the principal part itself.
    private static (Tensor, Tensor) Pissa(Tensor weight, long r, int? iterations, double scaling)
    {
        Tensor u, s, vh;
        if (iterations is { } n) (u, s, vh) = RandomizedSvd(weight, r, n);
        else (u, s, vh) = linalg.svd(weight, fullMatrices: false);
        var root = (s.narrow(0, 0, r) / scaling).sqrt();
        return (root.unsqueeze(1) * vh.narrow(0, 0, r), u.narrow(1, 0, r) * root);
    }

    // torch.svd_lowrank with q = r, as PEFT calls it: no oversampling. The random start is (columns, r) of the taller of W and Wᵀ.
    private static (Tensor U, Tensor S, Tensor Vh) RandomizedSvd(Tensor weight, long r, int iterations)
    {
        bool wide = weight.shape[0] < weight.shape[1];
        var x = wide ? weight.t() : weight;
        var q = Q(x.matmul(randn(x.shape[1], r, device: x.device)));
        for (int i = 0; i < iterations; i++)
        {
            q = Q(x.t().matmul(q));
            q = Q(x.matmul(q));
        }
        var (u, s, vh) = linalg.svd(q.t().matmul(x), fullMatrices: false);
        u = q.matmul(u);
        return wide ? (vh.t(), s, u.t()) : (u, s, vh);
    }

    // Büyükakyüz 2024.
    private static (Tensor, Tensor) Olora(Tensor weight, long r)
    {
        var (q, upper) = linalg.qr(weight);
        return (upper.narrow(0, 0, r), q.narrow(1, 0, r));
    }

    private static (Tensor, Tensor) Orthogonal(long r, long inFeatures, long outFeatures)
    {
        var q = Q(randn(r, r));
        var odd = q.index_select(0, arange(0, r, 2, ScalarType.Int64));
        var even = q.index_select(0, arange(1, r, 2, ScalarType.Int64));
        var a = randn(inFeatures, r / 2).mm(odd).t() / 10.0;
        var b = randn(r / 2, outFeatures).t().mm(even) / 10.0;
        return (a, b);
    }

    // Li et al. 2023. As in PEFT the factors take no account of the scaling, and the last round's residual is not used.
    private static (Tensor, Tensor) Loftq(LoraLinear layer, Tensor weight, long r, LoftqSettings settings, AdapterOptions options)
    {
        if (options.Loftq is null)
            throw new AdapterStateException("init_lora_weights 'loftq' needs a quantiser; set AdapterOptions.Loftq.");
        var residual = weight;
        Tensor quantized = weight, a = weight, b = weight;
        for (int i = 0; i < settings.Iterations; i++)
        {
            quantized = options.Loftq.Approximate(residual, settings.Bits).MoveToCurrent();
            var (u, s, vh) = linalg.svd(weight - quantized, fullMatrices: false);
            var root = s.narrow(0, 0, r).sqrt();
            (a, b) = (root.unsqueeze(1) * vh.narrow(0, 0, r), u.narrow(1, 0, r) * root);
            residual = weight - b.matmul(a);
        }
        layer.OverwriteBase(quantized);
        return (a, b);
    }

    private static Tensor Q(Tensor x) => linalg.qr(x).Q;
}
