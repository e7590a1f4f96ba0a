using System.Runtime.InteropServices;
using Peft.Core;
using Peft.Quantization;
using TorchSharp;

namespace Peft.Llava;

/// <summary>Turns a failed allocation of a step into an exception that says what was to be held and what would take less.</summary>
internal static class OutOfMemory
{
    /// <summary>Whether an exception is a failed allocation: of .NET, or of libtorch on the CPU or a GPU, which has no type of its own.</summary>
    public static bool Is(Exception e) => e is OutOfMemoryException
        || (e is ExternalException && (e.Message.Contains("can't allocate memory", StringComparison.Ordinal) || e.Message.Contains("not enough memory", StringComparison.Ordinal)
            || e.Message.Contains("out of memory", StringComparison.Ordinal)));

    public static TrainingMemoryException Describe(Exception e, StepWork work, TrainedModel trained, TrainingOptions options, bool weightsMoved, string? checkpoint)
    {
        var largest = work.Batches.MaxBy(b => b.Layout.TokenCount)!;
        long tokens = largest.Layout.TokenCount, tiles = largest.Pixels?.shape[0] ?? 0;
        string batch = $"{work.Batches.Count} micro-batch{(work.Batches.Count == 1 ? "" : "es")}, the largest of {largest.Layout.Count} sample{(largest.Layout.Count == 1 ? "" : "s")}, "
            + $"{tokens} tokens (longest {largest.Layout.PaddedLength}), {largest.SupervisedTokens} supervised and {tiles} image tile{(tiles == 1 ? "" : "s")} ({string.Join(", ", largest.SampleIds.Take(4))}"
            + $"{(largest.SampleIds.Count > 4 ? ", …" : "")})";
        return new TrainingMemoryException(work.Plan.Number, batch, weightsMoved, checkpoint, Advice(trained, options), Estimate(largest, trained, options), e);
    }

    private static List<string> Advice(TrainedModel trained, TrainingOptions options)
    {
        var advice = new List<string>();
        if (options.BatchSize > 1) advice.Add($"BatchSize {Math.Max(1, options.BatchSize / 2)} and twice the AccumulationSteps");
        if (!options.GradientCheckpointing) advice.Add("GradientCheckpointing");
        advice.Add($"a MaxLength below {options.MaxLength}");
        if (!trained.Model.modules().Any(m => m is FourBitLinear or Int8Linear) && trained.Peft is not null) advice.Add("a quantised base (LlavaLoadOptions.Quantization)");
        return advice;
    }

    private static MemoryEstimate? Estimate(LlavaBatch batch, TrainedModel trained, TrainingOptions options)
    {
        int samples = batch.Layout.Count;
        var assumptions = new MemoryAssumptions
        {
            Lora = trained.Peft is { ActiveAdapters: [var active, ..] } peft ? peft.ConfigOf(active) : null,
            Float32Adapter = trained.Peft is null || trained.Peft.Hosts.SelectMany(h => h.AdapterNames.SelectMany(h.TensorsOf)).Any(t => t.Tensor.dtype == torch.ScalarType.Float32),
            TokensPerSample = (batch.Layout.TokenCount + samples - 1) / samples,
            SupervisedTokensPerSample = (int)((batch.SupervisedTokens + samples - 1) / samples),
            ImagesPerSample = (int)(((batch.Pixels?.shape[0] ?? 0) + samples - 1) / samples),
            CachedFeatures = trained.Model.VisionTower?.Cache is not null,
        };
        try
        {
            return trained.Model.EstimateMemory(options with { BatchSize = samples }, assumptions);
        }
        catch (Exception second) when (second is PeftException || Is(second))
        {
            return null;   // the step's own failure is what has to be told
        }
    }
}
