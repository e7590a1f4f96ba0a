using Peft.Core;
using TorchSharp;

namespace Peft.Quantization;

/// <summary>Tensors that work together are on different devices.</summary>
public sealed class DeviceMismatchException : PeftException
{
    /// <summary>Creates the exception.</summary>
    /// <param name="name">The layer or operation.</param>
    /// <param name="expected">The device of the stored weight.</param>
    /// <param name="actual">The device of the other tensor.</param>
    public DeviceMismatchException(string name, torch.Device expected, torch.Device actual)
        : base($"{name}: the packed weight is on {expected}, the other tensor on {actual}. Move the layer or the tensor with .to(device).")
    {
        Name = name;
    }

    /// <summary>The layer or operation.</summary>
    public string Name { get; }
}
