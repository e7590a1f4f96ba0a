using TorchSharp.Modules;

namespace Peft.Quantization;

/// <summary>
/// SGD with an 8-bit momentum, as bitsandbytes' <c>SGD8bit</c>: the decay is added to the gradient, the first step copies it, and there is
/// neither dampening nor Nesterov's form.
/// </summary>
public sealed class Sgd8bit : EightBitOptimizer
{
    /// <summary>Creates the optimizer over groups.</summary>
    /// <param name="groups">The parameters; they remain the model's.</param>
    /// <param name="momentum">The momentum.</param>
    /// <param name="minEightBitSize">Tensors of fewer values keep their state in fp32.</param>
    /// <param name="stateFile">A file for the states, or null for memory.</param>
    public Sgd8bit(
        IEnumerable<EightBitParameterGroup> groups, double momentum = 0.9, long minEightBitSize = DefaultMinEightBitSize, string? stateFile = null)
        : base(UpdateRule.Sgd, groups, momentum, 0, 0, minEightBitSize, stateFile)
    {
    }

    /// <summary>Creates the optimizer over one group.</summary>
    /// <param name="parameters">The parameters; they remain the model's.</param>
    /// <param name="learningRate">The learning rate.</param>
    /// <param name="momentum">The momentum.</param>
    /// <param name="weightDecay">The decay, added to the gradient.</param>
    /// <param name="minEightBitSize">Tensors of fewer values keep an fp32 momentum.</param>
    /// <param name="stateFile">A file for the states, or null for memory.</param>
    public Sgd8bit(
        IEnumerable<Parameter> parameters, double learningRate, double momentum = 0.9, double weightDecay = 0,
        long minEightBitSize = DefaultMinEightBitSize, string? stateFile = null)
        : base(UpdateRule.Sgd, [new EightBitParameterGroup(parameters, learningRate, weightDecay)], momentum, 0, 0, minEightBitSize, stateFile)
    {
    }
}
