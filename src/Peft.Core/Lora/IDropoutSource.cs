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

    /// <summary>Adds the masked tensor to another one: <c>target += x * mask / (1 - p)</c>.</summary>
    /// <param name="input">A tensor of the shape that the mask was drawn for; not changed.</param>
    /// <param name="target">A tensor of the same shape and dtype without autograd; changed in place.</param>
    void AddTo(Tensor input, Tensor target)
    {
        ArgumentNullException.ThrowIfNull(target);
        using var masked = Apply(input);
        target.add_(masked);
    }
}

/// <summary>
/// Masks that are a function of a seed, which is drawn from libtorch's global generator (so <c>manual_seed</c> repeats a run): nothing is kept
/// between forward and backward. On the CPU one pass makes and applies the mask (<see cref="DropoutKernel"/>).
/// </summary>
public sealed class SeededDropout : IDropoutSource
{
    /// <inheritdoc/>
    public IDropoutMask Draw(string module, Tensor input, double probability)
    {
        using var seed = randint(long.MaxValue, [1], ScalarType.Int64);
        return new Mask((ulong)seed.ToInt64(), probability);
    }

    /// <summary>The mask of a seed, for sources that choose their seeds in another way.</summary>
    /// <param name="seed">Any number; mix it well, since counters next to each other overlap.</param>
    /// <param name="probability">The probability with which an element is dropped.</param>
    public static IDropoutMask MaskOf(ulong seed, double probability) => new Mask(seed, probability);

    private sealed record Mask(ulong Seed, double Probability) : IDropoutMask
    {
        public Tensor Apply(Tensor input)
        {
            using var scope = NewDisposeScope();
            var x = input.contiguous();
            if (!CpuTensor.IsKernelReady(x)) return (x * Kept(x)).mul_(1 / (1 - Probability)).MoveToOuterDisposeScope();
            var result = empty_like(x);
            DropoutKernel.Apply(x, result, Seed, Probability);
            return result.MoveToOuterDisposeScope();
        }

        public void AddTo(Tensor input, Tensor target)
        {
            using var scope = NewDisposeScope();
            var x = input.contiguous();
            if (CpuTensor.IsKernelReady(x) && CpuTensor.IsKernelReady(target) && x.dtype == target.dtype)
                DropoutKernel.Add(x, target, Seed, Probability);
            else
                target.add_(Apply(input));
        }

        private Tensor Kept(Tensor input)
        {
            using var generator = new Generator(Seed, input.device);
            return rand(input.shape, ScalarType.Float32, input.device, generator: generator).ge(Probability);
        }
    }
}
