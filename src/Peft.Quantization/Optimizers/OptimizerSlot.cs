using static TorchSharp.torch;

namespace Peft.Quantization;

/// <summary>The state of one parameter: one or two moments, in 8-bit codes with block maxima, or in fp32 for small tensors.</summary>
/// <param name="Parameter">The parameter; its owner's.</param>
/// <param name="State1">uint8 codes or fp32, in the parameter's shape.</param>
/// <param name="Absmax1">(blocks) fp32, or null with fp32 state.</param>
/// <param name="State2">As <paramref name="State1"/>, or null where the rule has one moment.</param>
/// <param name="Absmax2">As <paramref name="Absmax1"/>.</param>
internal sealed record OptimizerSlot(Tensor Parameter, Tensor State1, Tensor? Absmax1, Tensor? State2, Tensor? Absmax2) : IDisposable
{
    /// <summary>Values per block of the codes.</summary>
    public const int BlockSize = 256;

    /// <summary>Updates made.</summary>
    public int Step { get; set; }

    /// <summary>The state under bitsandbytes' names, maps not included.</summary>
    public IEnumerable<(string Name, Tensor Value)> Tensors
        => new (string Name, Tensor? Value)[] { ("state1", State1), ("state2", State2), ("absmax1", Absmax1), ("absmax2", Absmax2) }
            .Where(t => t.Value is not null).Select(t => (t.Name, t.Value!));

    public void Dispose()
    {
        foreach (var (_, value) in Tensors) value.Dispose();
    }
}
