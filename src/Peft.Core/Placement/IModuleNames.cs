namespace Peft.Core;

/// <summary>
/// A model whose modules have other paths in memory than in the files of the outside world implements this; adapters are matched, named and
/// saved by the outer names. Without it the names are the same.
/// </summary>
public interface IModuleNames
{
    /// <summary>The outer path of a module or parameter.</summary>
    /// <param name="path">The path in memory.</param>
    /// <returns>The outer path.</returns>
    string ToExternal(string path);

    /// <summary>The path in memory of a module or parameter.</summary>
    /// <param name="path">The outer path.</param>
    /// <returns>The path in memory.</returns>
    string ToInternal(string path);

    /// <summary>
    /// How names that another version of the model gave its modules become present outer names, for adapter files that have them; null if the names are
    /// present ones or none of the model's.
    /// </summary>
    /// <param name="names">All names of a file, without PEFT's prefix.</param>
    /// <returns>The translation of a path or a name below it, or null.</returns>
    Func<string, string>? TranslationOf(IReadOnlyCollection<string> names) => null;
}
