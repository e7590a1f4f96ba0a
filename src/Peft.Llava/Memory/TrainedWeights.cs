using Peft.Core;
using Peft.Quantization;
using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>What the weights, their gradients and the optimizer's state take.</summary>
internal sealed record TrainedWeights
{
    private const int DefaultRank = 128;
    private static readonly string[] LinearNames = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

    public long BaseBytes { get; private init; }

    public long BaseElements { get; private init; }

    public long AdapterBytes { get; private init; }

    public long OptimizerBytes { get; private init; }

    public long GradientBytes { get; private init; }

    /// <summary>Elements that are trained.</summary>
    public long Elements { get; private init; }

    /// <summary>Bytes of an element of the projector.</summary>
    public long ProjectorSize { get; private init; }

    public IReadOnlyList<LayerRanks> Layers { get; private init; } = [];

    public static ScalarType BaseDtypeOf(TrainingOptions options, MemoryAssumptions assumptions)
        => assumptions.BaseDtype ?? options.Precision switch
        {
            TrainingPrecision.BFloat16 => ScalarType.BFloat16,
            TrainingPrecision.Float16 => ScalarType.Float16,
            _ => ScalarType.Float32,
        };

    /// <summary>Counts them.</summary>
    /// <param name="config">The model's configuration.</param>
    /// <param name="options">The options.</param>
    /// <param name="assumptions">The rest.</param>
    /// <param name="stored">The base as it is stored; null to plan that too.</param>
    public static TrainedWeights Plan(LlavaConfig config, TrainingOptions options, MemoryAssumptions assumptions, StoredBase? stored)
    {
        var dtype = BaseDtypeOf(options, assumptions);
        var manifest = ModelManifest.Of(config);
        PlannedAdapter? plan = options.Trainable.Adapter ? PlanAdapter(config, manifest, assumptions) : null;
        var trained = new List<(IReadOnlyList<long> Shape, long Size)>();
        long adapterSize = assumptions.Float32Adapter ? sizeof(float) : dtype.ElementSize();
        foreach (var target in plan?.Plan.Targets ?? [])
        {
            trained.Add(([target.Rank, target.InFeatures], adapterSize));
            trained.Add(([target.OutFeatures, target.Rank], adapterSize));
        }
        // What learns beside a float16 base is float32, and is stored so.
        long learnedSize = options.Precision == TrainingPrecision.Float16 ? sizeof(float) : dtype.ElementSize();
        long SizeOf(TensorSpec spec) => stored?.SizeOf(LlavaModel.PartOf(spec.Name)) ?? (IsTrained(spec.Name, options.Trainable) ? learnedSize : dtype.ElementSize());
        foreach (var spec in manifest.Where(s => IsTrained(s.Name, options.Trainable))) trained.Add((spec.Shape, SizeOf(spec)));
        return new TrainedWeights
        {
            BaseBytes = stored?.Bytes ?? BaseOf(manifest, dtype, assumptions.Quantization) + manifest.Sum(s => Count(s) * (SizeOf(s) - dtype.ElementSize())),
            ProjectorSize = manifest.FirstOrDefault(s => LlavaModel.PartOf(s.Name) == ModelPart.Projector) is { } first ? SizeOf(first) : dtype.ElementSize(),
            BaseElements = manifest.Sum(Count),
            AdapterBytes = (plan?.Plan.Parameters ?? 0) * adapterSize,
            OptimizerBytes = trained.Sum(t => StateOf(options.Optimizer, t.Shape, t.Size)),
            GradientBytes = trained.Sum(t => Count(t.Shape) * t.Size),
            Elements = trained.Sum(t => Count(t.Shape)),
            Layers = [.. Enumerable.Range(0, config.Language.LayerCount).Select(i => RanksOf(i, plan?.Ranks))],
        };
    }

    private static LayerRanks RanksOf(int layer, IReadOnlyDictionary<string, int>? ranks)
    {
        long[] r = [.. LinearNames.Select(name =>
        {
            string block = name is "gate_proj" or "up_proj" or "down_proj" ? "mlp" : "self_attn";
            return (long)(ranks?.GetValueOrDefault($"model.layers.{layer}.{block}.{name}") ?? 0);
        })];
        return new LayerRanks(r[0], r[1], r[2], r[3], r[4], r[5], r[6]);
    }

    /// <summary>PEFT's own rules decide what gets an adapter: they are asked on a model without data.</summary>
    private static PlannedAdapter PlanAdapter(
        LlavaConfig config, IReadOnlyList<TensorSpec> manifest, MemoryAssumptions assumptions)
    {
        using var scope = NewDisposeScope();
        var state = manifest.ToDictionary(s => s.Name, s => empty([.. s.Shape], ScalarType.BFloat16, META));
        using var model = LlavaModel.FromState(config, state);
        var plan = AdapterPlan.For(model, assumptions.Lora ?? new LoraConfig
        {
            Rank = DefaultRank,
            Alpha = 2 * DefaultRank,
            Dropout = 0.05,
            TargetModules = TargetModules.Regex($".*layers.*({string.Join('|', LinearNames)})"),
            ExcludeModules = TargetModules.Regex(".*vision.*"),
        });
        return new PlannedAdapter(plan, plan.Targets.ToDictionary(t => model.ToInternal(t.Path), t => t.Rank));
    }

    private static long BaseOf(IReadOnlyList<TensorSpec> manifest, ScalarType dtype, QuantizationConfig? quantization)
    {
        long size = dtype.ElementSize();
        if (quantization is null) return manifest.Sum(Count) * size;
        var linears = manifest.Where(IsLinear).ToDictionary(s => s.Name[..^".weight".Length], s => s.Shape);
        var plan = new ModelQuantizer(quantization).Plan(linears.Select(l => (l.Key, l.Value)), dtype);
        long decoded = plan.Layers.Where(l => l.Form is not null).Select(l => l.OutFeatures * l.InFeatures).DefaultIfEmpty().Max() * size;
        return manifest.Where(s => !IsLinear(s)).Sum(Count) * size + plan.Layers.Sum(l => l.Bytes) + decoded;
    }

    private static bool IsLinear(TensorSpec spec)
        => spec.Shape.Count == 2 && spec.Name.EndsWith(".weight", StringComparison.Ordinal) && !spec.Name.Contains("embed", StringComparison.Ordinal)
            && !spec.Name.Contains("embedding", StringComparison.Ordinal);

    private static bool IsTrained(string name, TrainableParts parts) => LlavaModel.PartOf(name) switch
    {
        ModelPart.Projector or ModelPart.ImageNewline => parts.Projector,
        ModelPart.Head => parts.Head,
        ModelPart.Decoder or ModelPart.Embedding => parts.LanguageModel,
        _ => false,
    };

    private static long StateOf(OptimizerKind optimizer, IReadOnlyList<long> shape, long size) => optimizer switch
    {
        OptimizerKind.AdamW or OptimizerKind.AdamWTransformers => 2 * Count(shape) * size,
        OptimizerKind.Adafactor => shape.Count >= 2
            ? (Count(shape) / shape[^1] + Count(shape) / shape[^2]) * sizeof(float)
            : Count(shape) * sizeof(float),
        _ => 0,
    };

    private static long Count(TensorSpec spec) => Count(spec.Shape);

    private static long Count(IReadOnlyList<long> shape) => shape.Aggregate(1L, (product, side) => product * side);

    /// <summary>The plan, and its ranks by paths in memory.</summary>
    private sealed record PlannedAdapter(AdapterPlan Plan, IReadOnlyDictionary<string, int> Ranks);
}
