using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Peft.Core;

/// <summary>One tensor of an adapter in a module.</summary>
/// <param name="MemoryName">Its name below the module, with the adapter's name: <c>lora_A.default.weight</c>.</param>
/// <param name="DiskName">Its name below the module in a file, without: <c>lora_A.weight</c>.</param>
/// <param name="Tensor">The tensor itself.</param>
public sealed record AdapterTensor(string MemoryName, string DiskName, Parameter Tensor);

/// <summary>A module that was put in the place of another one to carry adapters.</summary>
public interface IAdapterHost
{
    /// <summary>The outer path of the place.</summary>
    string ModulePath { get; }

    /// <summary>The module that stood here before; it comes back when the adapters are unloaded.</summary>
    nn.Module Original { get; }

    /// <summary>The names of the adapters that have tensors here.</summary>
    IEnumerable<string> AdapterNames { get; }

    /// <summary>The tensors of one adapter; empty if it has none here.</summary>
    /// <param name="adapter">The adapter's name.</param>
    /// <returns>The tensors, owned by this module.</returns>
    IEnumerable<AdapterTensor> TensorsOf(string adapter);

    /// <summary>The base's own parameters as they are named with the wrapping: <c>base_layer.weight</c>.</summary>
    /// <returns>Name below this module and parameter.</returns>
    IEnumerable<(string Name, Parameter Parameter)> BaseParameters();

    /// <summary>Drops one adapter's tensors; nothing happens if it has none here.</summary>
    /// <param name="adapter">The adapter's name.</param>
    void Remove(string adapter);

    /// <summary>Gives an adapter another name; nothing happens if it has no tensors here.</summary>
    /// <param name="from">The name it has.</param>
    /// <param name="to">The name it gets.</param>
    void Rename(string from, string to);

    /// <summary>Lets go of the base and drops all adapters; the module is of no use afterwards.</summary>
    void Release();
}
