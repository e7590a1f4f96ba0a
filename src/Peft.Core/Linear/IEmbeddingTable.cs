using TorchSharp.Modules;

namespace Peft.Core;

/// <summary>A module that looks rows up in a table; such a module can carry LoRA.</summary>
public interface IEmbeddingTable
{
    /// <summary>The table (V, D) itself; owned by the module.</summary>
    Parameter Weight { get; }

    /// <summary>A row that gets no gradient, or null.</summary>
    long? PaddingIndex { get; }
}
