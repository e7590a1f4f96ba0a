using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Quantization;

/// <summary>The check for NaN and infinity, at the cost of looking at the block or row maxima.</summary>
internal static class FiniteWeights
{
    /// <summary>Throws if any maximum, and so any value, is not finite.</summary>
    /// <param name="name">The weight's name.</param>
    /// <param name="weight">The weight.</param>
    /// <param name="maxima">Its block or row maxima.</param>
    /// <param name="seenAs">The dtype in which it was quantised.</param>
    public static void Require(string name, Tensor weight, Tensor maxima, ScalarType seenAs = ScalarType.Float32)
    {
        using var scope = NewDisposeScope();
        if (maxima.isfinite().all().ToBoolean()) return;
        var flat = weight.reshape(-1);
        long index = flat.to(seenAs).isfinite().logical_not().to(ScalarType.Byte).argmax().ToInt64();
        throw new NonFiniteWeightException(name, weight.shape, index, flat[index].to(ScalarType.Float32).ToSingle());
    }
}
