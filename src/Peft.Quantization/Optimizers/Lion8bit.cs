using TorchSharp.Modules;

namespace Peft.Quantization;

/// <summary>Lion (Chen et al., 2023) with its moment in 8 bits, as bitsandbytes' <c>Lion8bit</c>.</summary>
public sealed class Lion8bit : EightBitOptimizer
{
    /// <summary>Creates the optimizer over groups.</summary>
    /// <param name="groups">The parameters; they remain the model's.</param>
    /// <param name="beta1">Weighs the moment in the direction of the update.</param>
    /// <param name="beta2">Decay of the moment.</param>
    /// <param name="minEightBitSize">Tensors of fewer values keep their state in fp32.</param>
    /// <param name="stateFile">A file for the states, or null for memory.</param>
    public Lion8bit(
        IEnumerable<EightBitParameterGroup> groups, double beta1 = 0.9, double beta2 = 0.99, long minEightBitSize = DefaultMinEightBitSize, string? stateFile = null)
        : base(UpdateRule.Lion, groups, beta1, beta2, 0, minEightBitSize, stateFile)
    {
    }

    /// <summary>Creates the optimizer over one group.</summary>
    /// <param name="parameters">The parameters; they remain the model's.</param>
    /// <param name="learningRate">The learning rate.</param>
    /// <param name="weightDecay">The decay, taken off before the update.</param>
    /// <param name="beta1">Weighs the moment in the direction of the update.</param>
    /// <param name="beta2">Decay of the moment.</param>
    /// <param name="minEightBitSize">Tensors of fewer values keep an fp32 moment.</param>
    /// <param name="stateFile">A file for the states, or null for memory.</param>
    public Lion8bit(
        IEnumerable<Parameter> parameters, double learningRate = 1e-4, double weightDecay = 0, double beta1 = 0.9, double beta2 = 0.99,
        long minEightBitSize = DefaultMinEightBitSize, string? stateFile = null)
        : base(UpdateRule.Lion, [new EightBitParameterGroup(parameters, learningRate, weightDecay)], beta1, beta2, 0, minEightBitSize, stateFile)
    {
    }
}
