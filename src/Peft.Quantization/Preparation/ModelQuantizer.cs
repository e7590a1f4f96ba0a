using Peft.Core;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Quantization;

/// <summary>
/// Quantises linear layers, one at a time: as they are loaded (<see cref="Store"/>), or those of a model that is there (<see cref="Quantize"/>).
/// All layers it makes share one <see cref="DecodeWorkspace"/>.
/// </summary>
public sealed class ModelQuantizer
{
    private readonly Func<string, string> _nameForSkipping;

    /// <summary>Creates the quantiser.</summary>
    /// <param name="config">How.</param>
    /// <param name="nameForSkipping">Turns a layer's path in memory into the words of the skip list; null for the path itself.</param>
    /// <exception cref="QuantizationConfigException">The settings cannot be.</exception>
    public ModelQuantizer(QuantizationConfig config, Func<string, string>? nameForSkipping = null)
    {
        ArgumentNullException.ThrowIfNull(config);
        var problems = config.Problems();
        if (problems.Count > 0) throw new QuantizationConfigException("QuantizationConfig", problems);
        Config = config;
        _nameForSkipping = nameForSkipping ?? (path => path);
    }

    /// <summary>The settings.</summary>
    public QuantizationConfig Config { get; }

    /// <summary>The buffers that the layers decode into.</summary>
    public DecodeWorkspace Workspace { get; } = new();

    /// <summary>Whether a layer is to be quantised.</summary>
    /// <param name="path">Its path in memory.</param>
    public bool Wants(string path) => !Config.Skips(_nameForSkipping(path));

    /// <summary>The storage of a layer, while a model is built.</summary>
    /// <param name="path">The layer's path in memory.</param>
    /// <param name="weight">(out, in), possibly memory-mapped; disposed here if the layer is quantised.</param>
    /// <param name="bias">(out) or null; ownership is taken if the layer is quantised.</param>
    /// <returns>The layer, or null where the skip list names it (nothing was taken then).</returns>
    /// <exception cref="NonFiniteWeightException">NaN or infinity in the weight.</exception>
    public FrozenLinear? Store(string path, Tensor weight, Tensor? bias)
    {
        ArgumentNullException.ThrowIfNull(weight);
        if (!Wants(path)) return null;
        using (weight)
        {
            var layer = Make(path, weight, bias);
            MappedPages.Release(weight);
            return layer;
        }
    }

    /// <summary>A layer over packed tensors that a checkpoint holds.</summary>
    /// <param name="reader">The checkpoint.</param>
    /// <param name="module">The module's name in it.</param>
    /// <param name="path">The layer's path in memory.</param>
    /// <param name="weightDtype">The dtype the model was loaded in, which int8 files do not tell.</param>
    /// <param name="bias">(out) or null; ownership is taken.</param>
    /// <returns>The layer, or null where the weight is stored plainly (nothing was taken then).</returns>
    /// <exception cref="QuantStateException">Statistics are missing, truncated or contradictory.</exception>
    /// <exception cref="QuantMapException">The codes were made with another table.</exception>
    public FrozenLinear? Read(ITensorReader reader, string module, string path, ScalarType weightDtype, Tensor? bias)
    {
        switch (BitsandbytesKeys.FormOf(reader, module))
        {
            case StoredForm.FourBit:
                return new FourBitLinear(BitsandbytesKeys.ReadFourBit(reader, module), bias, Config.ComputeDtype, Workspace, path);
            case StoredForm.Int8:
                var (codes, absmax) = BitsandbytesKeys.ReadInt8(reader, module);
                return new Int8Linear(codes, absmax, bias, Config.Threshold, weightDtype, Workspace, path);
            default:
                return null;
        }
    }

    /// <summary>What quantising would do.</summary>
    /// <param name="layers">The linear layers: path in memory and shape (out, in) of each.</param>
    /// <param name="dtype">The dtype of dense weights.</param>
    public QuantizationPlan Plan(IEnumerable<(string Path, IReadOnlyList<long> Shape)> layers, ScalarType dtype)
    {
        ArgumentNullException.ThrowIfNull(layers);
        return new QuantizationPlan([.. layers.Select(layer => PlanOf(layer.Path, layer.Shape[0], layer.Shape[1], dtype))]);
    }

    /// <summary>What <see cref="Quantize"/> would do.</summary>
    /// <param name="model">The model; it is not changed.</param>
    public QuantizationPlan Plan(nn.Module model)
        => new([.. Linears(model).Select(l => PlanOf(l.Path, l.Layer.OutFeatures, l.Layer.InFeatures, l.Layer.WeightDtype))]);

    /// <summary>Quantises the linear layers of a model in place, one after the other; each dense weight is freed at once.</summary>
    /// <param name="model">The model; its <see cref="DenseFrozenLinear"/> and TorchSharp <c>Linear</c> layers are replaced.</param>
    /// <returns>What was done.</returns>
    /// <exception cref="NonFiniteWeightException">NaN or infinity in a weight; the layers before it are quantised.</exception>
    /// <exception cref="ModuleReplacementException">A layer stands in a field that cannot hold another one; nothing has changed.</exception>
    public QuantizationPlan Quantize(nn.Module model)
    {
        var plan = Plan(model);
        var wanted = Linears(model).Where(l => Wants(l.Path)).ToList();
        foreach (var (path, _, _) in wanted) ModuleTree.CheckReplaceable(model, path, Config.Bits == 4 ? typeof(FourBitLinear) : typeof(Int8Linear));
        foreach (var (path, layer, original) in wanted)
        {
            using var scope = NewDisposeScope();
            var weight = original is DenseFrozenLinear dense ? dense.Weight : ((Linear)original).weight;
            ModuleTree.Replace(model, path, Make(path, weight!, layer.BiasTensor?.detach().clone().DetachFromDisposeScope()));
            original.Dispose();
        }
        return plan;
    }

    private FrozenLinear Make(string path, Tensor weight, Tensor? bias)
    {
        return Config.Bits == 4
            ? FourBitLinear.Quantize(new FourBitCodec(Config.QuantType, Config.BlockSize, Config.DoubleQuantization), weight, bias, Config.ComputeDtype, Workspace, path)
            : Int8Linear.Quantize(weight, bias, Config.Threshold, Workspace, path);
    }

    private PlannedLayer PlanOf(string path, long rows, long columns, ScalarType dtype)
    {
        long count = rows * columns, dense = count * dtype.ElementSize();
        if (!Wants(path)) return new PlannedLayer(path, rows, columns, null, dense, dense);
        if (Config.Bits == 8) return new PlannedLayer(path, rows, columns, "int8", dense, count + 4 * rows);
        long blocks = (count + Config.BlockSize - 1) / Config.BlockSize;
        long statistics = Config.DoubleQuantization
            ? blocks + 4 * ((blocks + BlockScales.NestedBlockSize - 1) / BlockScales.NestedBlockSize) + 4
            : 4 * blocks;
        return new PlannedLayer(path, rows, columns, Config.QuantType.Name, dense, (count + 1) / 2 + statistics);
    }

    private static IEnumerable<(string Path, FrozenLinear Layer, nn.Module Original)> Linears(nn.Module model)
    {
        ArgumentNullException.ThrowIfNull(model);
        foreach (var (path, module) in ModuleTree.Modules(model))
        {
            if (module is DenseFrozenLinear dense) yield return (path, dense, dense);
            else if (module is Linear linear) yield return (path, new TorchLinear(linear), linear);
        }
    }
}
