using Peft.Core;
using TorchSharp;

namespace Peft.Llava;

/// <summary>Estimates the memory of a training, from configuration and options alone (no weight is read), or of a model that is loaded.</summary>
/// <remarks>
/// It counts what the code of this library keeps and makes on the CPU, where it was measured (docs/memory.md); on a GPU the parts are the same,
/// but the work areas of its libraries are not.
/// </remarks>
public static class MemoryEstimator
{
    /// <summary>Estimates a training's memory.</summary>
    /// <param name="config">The model's configuration, with the tower's sizes where it has one.</param>
    /// <param name="options">The options; the folder may be missing.</param>
    /// <param name="assumptions">The rest; null for LLaVA's LoRA with samples of full length.</param>
    /// <returns>The estimate.</returns>
    /// <exception cref="InvalidLoraConfigException">The adapter's settings cannot be.</exception>
    /// <exception cref="TargetNotFoundException">The adapter means no layer of the model.</exception>
    /// <exception cref="TrainingOptionsException">The options contradict each other or the model.</exception>
    public static MemoryEstimate EstimateMemory(this LlavaConfig config, TrainingOptions options, MemoryAssumptions? assumptions = null)
    {
        ArgumentNullException.ThrowIfNull(config);
        ArgumentNullException.ThrowIfNull(options);
        return Estimate(config, options, assumptions ?? new MemoryAssumptions(), null);
    }

    /// <summary>
    /// Estimates the memory of training a model that is loaded: its weights count as they are stored, in their dtypes, dense or packed, however it came
    /// to be quantised. Adapters that it carries are not counted; <see cref="MemoryAssumptions.Lora"/> says what they are.
    /// </summary>
    /// <param name="model">The model, with or without adapters; it is not changed.</param>
    /// <param name="options">The options; the folder may be missing.</param>
    /// <param name="assumptions">The rest, without dtype and quantisation of the base; null for LLaVA's LoRA with samples of full length.</param>
    /// <returns>The estimate.</returns>
    /// <exception cref="InvalidLoraConfigException">The adapter's settings cannot be.</exception>
    /// <exception cref="TargetNotFoundException">The adapter means no layer of the model.</exception>
    /// <exception cref="TrainingOptionsException">The options contradict each other or the model, or the assumptions say how the base is stored.</exception>
    public static MemoryEstimate EstimateMemory(this LlavaModel model, TrainingOptions options, MemoryAssumptions? assumptions = null)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(options);
        assumptions ??= new MemoryAssumptions();
        if (assumptions.Quantization is not null || assumptions.BaseDtype is not null)
            throw new TrainingOptionsException(["BaseDtype and Quantization of a loaded model are its own; leave them out of the assumptions, or estimate from its Config"]);
        var stored = StoredBase.Of(model);
        return Estimate(model.Config, options, assumptions with { BaseDtype = stored.Dtype }, stored);
    }

    private static MemoryEstimate Estimate(LlavaConfig config, TrainingOptions options, MemoryAssumptions assumptions, StoredBase? stored)
    {
        Check(config, options, assumptions);
        var weights = TrainedWeights.Plan(config, options, assumptions, stored);
        var shape = ShapeOf(config, options, assumptions);
        var decoder = new DecoderMemory(config.Language, shape, options.Trainable.LanguageModel);
        var vision = new VisionMemory(config, shape, options.Trainable.Projector, weights.ProjectorSize, assumptions.CachedFeatures);
        return new MemoryEstimate(Moments(config, options, assumptions, weights, shape, decoder, vision), weights.Elements, weights.BaseElements);
    }

    private static List<MemoryMoment> Moments(
        LlavaConfig config, TrainingOptions options, MemoryAssumptions assumptions, TrainedWeights weights, MemoryShape shape, DecoderMemory decoder,
        VisionMemory vision)
    {
        long gradientsBefore = options.AccumulationSteps > 1 ? weights.GradientBytes : 0;
        var still = new MemoryMoment("between")
        {
            Base = weights.BaseBytes,
            Adapter = weights.AdapterBytes,
            Optimizer = weights.OptimizerBytes,
            Gradients = gradientsBefore,
            Vision = vision.Pixels,
            Runtime = assumptions.RuntimeBytes,
        };
        var layers = weights.Layers.Select(decoder.Kept).ToList();
        long temporaries = weights.Layers.Max(decoder.Temporaries);
        // With checkpointing every layer but the last keeps its input and the stream within, and runs again when its turn comes.
        long replayed = options.GradientCheckpointing ? 2 * decoder.Stream * (layers.Count - 1) : 0;
        long kept = options.GradientCheckpointing ? replayed + layers[^1] : layers.Sum();
        long chunk = Math.Min(shape.Supervised, SupervisedLoss.ChunkRows);
        long states = shape.Supervised * config.Language.HiddenSize * shape.Size;
        long logits = chunk * config.Language.VocabularySize * shape.Size + chunk * config.Language.HiddenSize * shape.Size;
        // For bf16 products libtorch packs the head's weight into a copy.
        if (shape.Compute == torch.ScalarType.BFloat16 && chunk > 0) logits += (long)config.Language.VocabularySize * config.Language.HiddenSize * shape.Size;
        return
        [
            still with { Name = "vision", Vision = vision.Pixels + vision.Tower + vision.Features },
            still with
            {
                Name = "loss",
                Activations = kept + decoder.Stream,
                Vision = vision.Pixels + vision.HeldInForward + vision.ProjectorKept,
                Logits = 4 * states + logits,
            },
            still with
            {
                Name = "backward",
                Activations = (options.GradientCheckpointing ? replayed + layers.Max() : kept) + temporaries,
                Vision = vision.Pixels + vision.ProjectorKept,
                Logits = states,
            },
            still with
            {
                Name = "its end",
                Gradients = weights.GradientBytes,
                Activations = (options.GradientCheckpointing ? 2 * decoder.Stream : 0) + layers.Max() + temporaries,
                Vision = vision.Pixels + vision.ProjectorKept,
            },
            still with { Name = "update", Gradients = weights.GradientBytes },
        ];
    }

    private static MemoryShape ShapeOf(LlavaConfig config, TrainingOptions options, MemoryAssumptions assumptions)
    {
        long batch = options.BatchSize, tokens = assumptions.TokensPerSample ?? LengthLimit.Of(options.MaxLength, config, null);
        long tiles = config.HasVision ? (long)assumptions.ImagesPerSample * assumptions.TilesPerImage : 0;
        long features = tiles == 0 ? 0 : Math.Min(tokens, tiles * config.FeaturesPerTile);
        long supervised = assumptions.SupervisedTokensPerSample ?? tokens - features;
        return new MemoryShape(
            batch * tokens, tokens, batch * supervised, batch * tiles, batch * features, TrainedWeights.BaseDtypeOf(options, assumptions),
            assumptions.Lora?.Dropout is not 0);
    }

    private static void Check(LlavaConfig config, TrainingOptions options, MemoryAssumptions assumptions)
    {
        var problems = options.Trainable.Problems().ToList();
        if (config.HasVision && config.Vision is null)
            problems.Add($"the vision tower's sizes are not known from {config.Source}; add them by LlavaConfig.WithVision, or take the configuration of a loaded model");
        if (options.BatchSize < 1) problems.Add($"BatchSize {options.BatchSize} is not positive");
        if ((assumptions.TokensPerSample ?? options.MaxLength ?? 1) < 1) problems.Add("a sample has no tokens; set TokensPerSample or MaxLength");
        if (problems.Count > 0) throw new TrainingOptionsException(problems);
    }
}
