using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>Where LoRA's dropout masks come from.</summary>
public interface IDropoutSource
{
    /// <summary>Draws a mask for one use of one layer.</summary>
    /// <param name="module">The layer's outer path.</param>
    /// <param name="input">The tensor that will be masked; only its shape, dtype and device are of interest. Not kept.</param>
    /// <param name="probability">The probability with which an element is dropped.</param>
    /// <returns>A mask, used in the forward and again in the backward.</returns>
    IDropoutMask Draw(string module, Tensor input, double probability);
}

/// <summary>One drawn mask. It must give the same pattern each time it is applied; it should remember a seed rather than hold tensors.</summary>
public interface IDropoutMask
{
    /// <summary>Drops and scales: <c>x * mask / (1 - p)</c>. The gradient is the same map.</summary>
    /// <param name="input">A tensor of the shape that the mask was drawn for; not changed.</param>
    /// <returns>A fresh tensor of the input's shape and dtype; the caller disposes it.</returns>
    Tensor Apply(Tensor input);
}

/// <summary>
/// Masks from libtorch's generator: a seed is drawn from the global generator (so <c>manual_seed</c> repeats a run) and the mask is made again
/// from it in the backward, so that nothing is kept in between.
/// </summary>
public sealed class TorchDropout : IDropoutSource
{
    /// <inheritdoc/>
    public IDropoutMask Draw(string module, Tensor input, double probability)
    {
        using var seed = randint(long.MaxValue, [1], ScalarType.Int64);
        return new Mask(seed.ToInt64(), probability);
    }

    private sealed record Mask(long Seed, double Probability) : IDropoutMask
    {
        public Tensor Apply(Tensor input)
        {
            using var scope = NewDisposeScope();
            using var generator = new Generator((ulong)Seed, input.device);
            var kept = rand(input.shape, ScalarType.Float32, input.device, generator: generator).ge(Probability);
            return (input * kept).mul_(1 / (1 - Probability)).MoveToOuterDisposeScope();
        }
    }
}
