using Peft.Quantization;

namespace Peft.Llava;

/// <summary>Makes the optimizer that the options name.</summary>
internal static class OptimizerFactory
{
    public static TrainingOptimizer Create(TrainingOptions o, IReadOnlyList<ParameterGroup> groups) => o.Optimizer switch
    {
        OptimizerKind.AdamW => new AdamW(groups, o.AdamBeta1, o.AdamBeta2, o.AdamEpsilon),
        OptimizerKind.AdamWTransformers => new AdamW(groups, o.AdamBeta1, o.AdamBeta2, o.AdamEpsilon, AdamWForm.Transformers),
        OptimizerKind.Adafactor => new Adafactor(groups, new AdafactorSettings { ScaleParameter = false, RelativeStep = false }),
        OptimizerKind.AdamW8Bit => new EightBitTrainingOptimizer(groups, g => new AdamW8bit(g, o.AdamBeta1, o.AdamBeta2, o.AdamEpsilon)),
        OptimizerKind.PagedAdamW8Bit => new EightBitTrainingOptimizer(groups, g => new AdamW8bit(
            g, o.AdamBeta1, o.AdamBeta2, o.AdamEpsilon, stateFile: Path.Combine(Path.GetTempPath(), $"peft-optimizer-{Guid.NewGuid():N}"))),
        OptimizerKind.Lion8Bit => new EightBitTrainingOptimizer(groups, g => new Lion8bit(g, o.AdamBeta1, o.AdamBeta2)),
        _ => new Sgd(groups),
    };
}
