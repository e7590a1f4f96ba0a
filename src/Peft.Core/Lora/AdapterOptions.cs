using TorchSharp;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>How adapters are made and loaded, beside their settings.</summary>
public sealed record AdapterOptions
{
    /// <summary>
    /// Whether adapters on a half-precision base are kept in float32 (PEFT's <c>autocast_adapter_dtype</c>, on by default since 0.12). Without
    /// it they have the base weight's dtype.
    /// </summary>
    public bool UpcastToFloat32 { get; init; } = true;

    /// <summary>Whether an adapter that is loaded can be trained on; without it, it is for inference.</summary>
    public bool Trainable { get; init; }

    /// <summary>
    /// The fingerprint of the base's weights (<see cref="TensorFingerprint"/>), or null for what the base itself knows (<see cref="IFingerprintedBase"/>):
    /// it is saved with the adapters, and an adapter that was made on another base is refused.
    /// </summary>
    public string? BaseFingerprint { get; init; }

    /// <summary>Loads an adapter although it says that it was made on another base.</summary>
    public bool AllowOtherBase { get; init; }

    /// <summary>
    /// Loads an adapter although its folder holds other trained values that belong to it and the model lacks (<see cref="IAdapterCompanions"/>): for who puts
    /// them in afterwards, or wants the adapter alone.
    /// </summary>
    public bool IgnoreCompanions { get; init; }

    /// <summary>Quantises and dequantises for <see cref="LoraInit.Loftq"/>; needed with that only.</summary>
    public ILoftqQuantizer? Loftq { get; init; }
}

/// <summary>What LoftQ has to know of a quantisation: what a weight becomes.</summary>
public interface ILoftqQuantizer
{
    /// <summary>Quantises a weight and decodes it again.</summary>
    /// <param name="weight">(out, in) float32; not changed.</param>
    /// <param name="bits">The bits of a value.</param>
    /// <returns>A fresh (out, in) float32 tensor; the caller disposes it.</returns>
    Tensor Approximate(Tensor weight, int bits);
}
