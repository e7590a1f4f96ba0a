namespace Peft.Core;

/// <summary>A model that says which of its parts adapters may mean. All paths are outer paths (see <see cref="IModuleNames"/>).</summary>
public interface IAdapterTargets
{
    /// <summary>Parts by name, each the paths of the modules it consists of: "language", "vision", "projector", …</summary>
    IReadOnlyDictionary<string, IReadOnlyList<string>> AdapterGroups { get; }

    /// <summary>The input embedding, or null.</summary>
    string? InputEmbedding { get; }

    /// <summary>The output head, which <see cref="TargetModules.AllLinear"/> leaves out, or null.</summary>
    string? OutputHead { get; }

    /// <summary>Whether head and embedding share one weight.</summary>
    bool TiesEmbeddings { get; }

    /// <summary>
    /// Whether the last part of a name (<c>q_proj</c>) among the target modules can mean a module; full paths, patterns and "all-linear" mean it in any case.
    /// </summary>
    /// <param name="path">The module's outer path.</param>
    /// <returns>True unless the model says otherwise.</returns>
    bool IsReachedByName(string path) => true;
}
