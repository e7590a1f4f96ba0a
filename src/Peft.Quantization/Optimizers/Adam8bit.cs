using TorchSharp.Modules;

namespace Peft.Quantization;

/// <summary>
/// Adam with 8-bit moments, as bitsandbytes' <c>Adam8bit</c>: its weight decay is decoupled too, so it differs from <see cref="AdamW8bit"/> in its default alone.
/// </summary>
public sealed class Adam8bit : EightBitOptimizer
{
    /// <summary>Creates the optimizer over groups.</summary>
    /// <param name="groups">The parameters; they remain the model's.</param>
    /// <param name="beta1">Decay of the first moment.</param>
    /// <param name="beta2">Decay of the second moment.</param>
    /// <param name="epsilon">Added to the denominator, after the bias correction.</param>
    /// <param name="minEightBitSize">Tensors of fewer values keep their state in fp32.</param>
    /// <param name="stateFile">A file for the states, or null for memory.</param>
    public Adam8bit(
        IEnumerable<EightBitParameterGroup> groups, double beta1 = 0.9, double beta2 = 0.999, double epsilon = 1e-8, long minEightBitSize = DefaultMinEightBitSize, string? stateFile = null)
        : base(UpdateRule.Adam, groups, beta1, beta2, epsilon, minEightBitSize, stateFile)
    {
    }

    /// <summary>Creates the optimizer over one group.</summary>
    /// <param name="parameters">The parameters; they remain the model's.</param>
    /// <param name="learningRate">The learning rate.</param>
    /// <param name="weightDecay">The decay, taken off before the update.</param>
    /// <param name="beta1">Decay of the first moment.</param>
    /// <param name="beta2">Decay of the second moment.</param>
    /// <param name="epsilon">Added to the denominator, after the bias correction.</param>
    /// <param name="minEightBitSize">Tensors of fewer values keep fp32 moments.</param>
    /// <param name="stateFile">A file for the states, or null for memory.</param>
    public Adam8bit(
        IEnumerable<Parameter> parameters, double learningRate = 1e-3, double weightDecay = 0, double beta1 = 0.9, double beta2 = 0.999,
        double epsilon = 1e-8, long minEightBitSize = DefaultMinEightBitSize, string? stateFile = null)
        : base(UpdateRule.Adam, [new EightBitParameterGroup(parameters, learningRate, weightDecay)], beta1, beta2, epsilon, minEightBitSize, stateFile)
    {
    }
}
