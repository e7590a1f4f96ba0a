namespace Peft.Core;

/// <summary>
/// A model whose training leaves more in an adapter's folder than PEFT's two files: values of other parameters that belong to the result. It is asked
/// when an adapter is loaded, so that none is loaded without them unnoticed.
/// </summary>
public interface IAdapterCompanions
{
    /// <summary>What of a folder belongs to its adapter and is not in the model.</summary>
    /// <param name="folder">The adapter's folder.</param>
    /// <returns>The file, what it holds, and what applies it, as whole sentences; null if the model has all of it.</returns>
    string? Unapplied(string folder);
}
