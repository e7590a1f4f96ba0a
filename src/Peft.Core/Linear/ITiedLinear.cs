using TorchSharp.Modules;

namespace Peft.Core;

/// <summary>
/// A linear layer without bias that uses another module's weight and has no parameter of its own: the output head of tied embeddings. Such a module
/// can carry adapters. A merge changes the weight where it is, and with it the module that owns it.
/// </summary>
public interface ITiedLinear
{
    /// <summary>The weight (out, in); owned by the other module.</summary>
    Parameter Weight { get; }
}
