using TorchSharp.Modules;

namespace Peft.Core;

/// <summary>Parameters that share a learning rate and a weight decay.</summary>
/// <param name="Name">What they are: "A", "B", …</param>
/// <param name="Parameters">The parameters by PEFT's names.</param>
/// <param name="LearningRate">The rate.</param>
/// <param name="WeightDecay">The decay.</param>
public sealed record LoraPlusGroup(string Name, IReadOnlyList<(string Name, Parameter Parameter)> Parameters, double LearningRate, double WeightDecay);

/// <summary>LoRA+ (Hayou et al. 2024): B learns faster than A. Gives the groups for an optimizer, with the split of PEFT's optimizer.</summary>
public static class LoraPlus
{
    /// <summary>The trained parameters in groups.</summary>
    /// <param name="peft">The model.</param>
    /// <param name="learningRate">The rate of A and of everything that is neither B nor one-dimensional.</param>
    /// <param name="ratio">How many times faster B and one-dimensional parameters learn; at least 1.</param>
    /// <param name="weightDecay">The decay, biases left out.</param>
    /// <param name="embeddingRate">The rate of LoRA on embeddings.</param>
    /// <returns>The groups that are not empty.</returns>
    /// <exception cref="ArgumentOutOfRangeException">The ratio is below 1.</exception>
    public static IReadOnlyList<LoraPlusGroup> Groups(
        PeftModel peft, double learningRate, double ratio = 16, double weightDecay = 0, double embeddingRate = 1e-6)
    {
        ArgumentNullException.ThrowIfNull(peft);
        ArgumentOutOfRangeException.ThrowIfLessThan(ratio, 1);
        var byGroup = peft.TrainableParameters().ToLookup(p =>
            p.Name.Contains("lora_embedding_", StringComparison.Ordinal) ? "embedding"
            : !p.Name.Contains("lora_B", StringComparison.Ordinal) && p.Parameter.dim() != 1 ? "A"
            : p.Name.Contains("bias", StringComparison.Ordinal) ? "B without decay" : "B");
        LoraPlusGroup[] groups =
        [
            new("A", [.. byGroup["A"]], learningRate, weightDecay),
            new("embedding", [.. byGroup["embedding"]], embeddingRate, weightDecay),
            new("B", [.. byGroup["B"]], learningRate * ratio, weightDecay),
            new("B without decay", [.. byGroup["B without decay"]], learningRate * ratio, 0),
        ];
        return [.. groups.Where(g => g.Parameters.Count > 0)];
    }
}
