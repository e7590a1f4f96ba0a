using TorchSharp;

namespace Peft.Llava;

/// <summary>The sizes of one micro-batch.</summary>
/// <param name="Rows">N, packed tokens.</param>
/// <param name="LongestSample">Tokens of the longest sample.</param>
/// <param name="Supervised">S.</param>
/// <param name="Tiles">Tiles of all images.</param>
/// <param name="Features">M, image features.</param>
/// <param name="Compute">The dtype of the stream.</param>
/// <param name="Dropout">Whether LoRA drops inputs.</param>
internal sealed record MemoryShape(
    long Rows, long LongestSample, long Supervised, long Tiles, long Features, torch.ScalarType Compute, bool Dropout)
{
    /// <summary>Bytes of an element of the stream.</summary>
    public long Size => Compute.ElementSize();

    /// <summary>Whether the decoder runs on the fused kernels, which keep less.</summary>
    public bool Fused => KernelChoice.Fuses(Rows);
}
