using TorchSharp;
using TorchSharp.Modules;

namespace Peft.Quantization;

/// <summary>Parameters that share a learning rate and a weight decay.</summary>
/// <param name="parameters">The parameters; they remain the model's.</param>
/// <param name="learningRate">The learning rate, which schedulers change.</param>
/// <param name="weightDecay">The decay.</param>
public sealed class EightBitParameterGroup(IEnumerable<Parameter> parameters, double learningRate, double weightDecay) : torch.optim.ILearningRateController
{
    /// <summary>The parameters.</summary>
    public IReadOnlyList<Parameter> Parameters { get; } = [.. parameters];

    /// <inheritdoc/>
    public double LearningRate { get; set; } = learningRate;

    /// <inheritdoc/>
    public double InitialLearningRate { get; set; } = learningRate;

    /// <summary>The decay.</summary>
    public double WeightDecay { get; set; } = weightDecay;
}
