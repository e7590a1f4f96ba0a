using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>Makes and fills the factors of a new adapter, with PEFT's draws: libtorch's generator, float32, then the base's dtype.</summary>
internal static class LoraInitializer
{
    /// <summary>Makes an adapter in a layer, its factors filled, and registers it there.</summary>
    /// <param name="layer">The layer.</param>
    /// <param name="name">The adapter's name.</param>
    /// <param name="config">Its settings.</param>
    /// <param name="target">Its rank and shape here.</param>
    /// <param name="options">How adapters are made.</param>
    /// <param name="filled">Whether the factors will be overwritten, so that drawing them can be left out.</param>
    public static void AddAdapter(LoraLayer layer, string name, LoraConfig config, PlannedTarget target, AdapterOptions options, bool filled)
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var (a, b) = Factors(layer, config, target, options, filled);
        var dtype = layer.BaseDtype;
        var wanted = options.UpcastToFloat32 && dtype is ScalarType.Float16 or ScalarType.BFloat16 ? ScalarType.Float32 : dtype;
        Parameter Own(Tensor t) => new(t.to(dtype).to(wanted).to(layer.BaseDevice).clone().DetachFromDisposeScope(), requires_grad: false);
        var bBias = config.LoraBOwnBias ? Own(zeros(target.OutFeatures)) : null;
        bool changesBase = config.Init.ChangesBase && layer is LoraLinear;
        if (changesBase)
        {
            // PEFT puts these factors in as they are, in float32 whatever the base's dtype.
            if (dtype is ScalarType.Float16 or ScalarType.BFloat16 && options.UpcastToFloat32) dtype = ScalarType.Float32;
        }
        var adapter = new LoraAdapter(name, config, target.Rank, target.Alpha, Own(a), Own(b), bBias);
        if (changesBase) adapter.Initial = (a.clone().DetachFromDisposeScope(), b.clone().DetachFromDisposeScope());
        layer.Add(adapter);
        if (config.UseDora) layer.AddMagnitude(adapter, wanted);
    }

    private static (Tensor A, Tensor B) Factors(LoraLayer layer, LoraConfig config, PlannedTarget target, AdapterOptions options, bool filled)
    {
        long r = target.Rank;
        bool spectral = config.Init.ChangesBase || config.Init == LoraInit.Orthogonal;
        // PEFT starts an embedding as always beside PiSSA, OLoRA and the orthogonal init.
        if (layer is LoraEmbedding && config.Init != LoraInit.Loftq) spectral = false;
        if (filled && !config.Init.ChangesBase) spectral = false;
        if (spectral && layer is not LoraLinear) throw new UnsupportedTargetException(layer.ModulePath, $"init_lora_weights '{config.Init}' works on linear layers only.");
        if (layer is LoraEmbedding)
        {
            var table = randn(target.OutFeatures, r);
            return (config.Init == LoraInit.Random ? randn(r, target.InFeatures) : zeros(r, target.InFeatures), table);
        }
        long[] shapeA = [r, target.InFeatures], shapeB = [target.OutFeatures, r];
        if (layer is LoraConv2d)
        {
            var convolution = (Conv2d)layer.Original;
            shapeA = ShapeOfA(convolution, r);
            shapeB = ShapeOfB(convolution, r);
        }
        var init = config.Init;
        if (spectral) return SpectralInit.Factors((LoraLinear)layer, config, target, options);
        if (filled) return (zeros(shapeA), zeros(shapeB));
        if (init == LoraInit.Gaussian) return (empty(shapeA).normal_(0, 1.0 / r), zeros(shapeB));
        var a = Uniform(shapeA);
        return (a, init == LoraInit.Random ? Uniform(shapeB) : zeros(shapeB));
    }

    /// <summary>(R, in, kh, kw): as in PEFT, A has no groups.</summary>
    internal static long[] ShapeOfA(Conv2d convolution, long r) => [r, convolution.in_channels, .. convolution.weight.shape.Skip(2)];

    /// <summary>(out, R / groups, 1, 1).</summary>
    internal static long[] ShapeOfB(Conv2d convolution, long r) => [convolution.out_channels, r / convolution.groups, 1, 1];

    // kaiming_uniform_ with a = sqrt(5), in the order of torch's own arithmetic.
    private static Tensor Uniform(long[] shape)
    {
        double slope = Math.Sqrt(5);
        double fanIn = shape.Skip(1).Aggregate(1L, (x, y) => x * y);
        double bound = Math.Sqrt(3) * (Math.Sqrt(2 / (1 + slope * slope)) / Math.Sqrt(fanIn));
        return empty(shape, ScalarType.Float32).uniform_(-bound, bound);
    }
}
