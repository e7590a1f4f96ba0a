using static TorchSharp.torch;

namespace Peft.Llava;

/// <summary>Processed pictures: one stacked tensor, or a list where their tile counts differ. Exactly one of the two is there.</summary>
/// <param name="Stacked">float32 [I, 3, C, C] or [I, tiles, 3, C, C]; owned by this value.</param>
/// <param name="Separate">Per picture float32 [tiles, 3, C, C]; owned by this value.</param>
public sealed record ImageTensors(Tensor? Stacked, IReadOnlyList<Tensor>? Separate) : IDisposable
{
    /// <summary>Disposes the tensors.</summary>
    public void Dispose()
    {
        Stacked?.Dispose();
        foreach (var tensor in Separate ?? []) tensor.Dispose();
    }
}
