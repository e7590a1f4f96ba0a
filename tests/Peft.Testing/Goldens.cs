using Xunit;
using Xunit.Sdk;

namespace Peft.Testing;

/// <summary>
/// The recorded cases: those in the repository and those of the roots that the environment variable <c>PEFT_GOLDENS</c> names
/// (separated like PATH, each with the same area folders).
/// </summary>
public static class Goldens
{
    /// <summary>The trait's name; its value is the area.</summary>
    public const string Trait = "Golden";

    /// <summary>All roots: the repository's own first.</summary>
    public static IReadOnlyList<string> Roots { get; } = FindRoots();

    /// <summary>The cases of an area, by folder, in all roots.</summary>
    public static IEnumerable<GoldenCase> Cases(string area)
        => Roots.Select(root => Path.Combine(root, area)).Where(Directory.Exists)
            .SelectMany(folder => Directory.EnumerateDirectories(folder).Order(StringComparer.Ordinal))
            .Where(folder => File.Exists(Path.Combine(folder, "case.json")))
            .Select(folder => new GoldenCase(folder));

    /// <summary>
    /// Theory rows (one argument: the case's folder) for the cases of an area that a predicate picks. The display name ends in the folder's name.
    /// </summary>
    /// <param name="area">The area's folder name.</param>
    /// <param name="pick">Which cases.</param>
    /// <param name="skip">Null, or for a case the reason why it cannot be run yet.</param>
    public static IEnumerable<TheoryDataRow<string>> Rows(
        string area, Func<GoldenCase, bool>? pick = null, Func<GoldenCase, string?>? skip = null)
    {
        foreach (var golden in Cases(area).Where(c => pick?.Invoke(c) ?? true))
        {
            bool own = golden.Folder.StartsWith(Roots[0], StringComparison.Ordinal);
            yield return new TheoryDataRow<string>(golden.Folder)
            {
                TestDisplayName = $"{area}{(own ? "" : " (further root)")}/{golden.Name}",
                Label = "",
                Skip = skip?.Invoke(golden),
            };
        }
    }

    private static List<string> FindRoots()
    {
        var roots = new List<string> { Path.Combine(Repository.Root, "tests", "goldens") };
        string? more = Environment.GetEnvironmentVariable("PEFT_GOLDENS");
        if (!string.IsNullOrEmpty(more))
        {
            foreach (string root in more.Split(Path.PathSeparator, StringSplitOptions.RemoveEmptyEntries))
            {
                if (!Directory.Exists(root)) throw new DirectoryNotFoundException($"PEFT_GOLDENS names '{root}', which is no folder.");
                roots.Add(Path.GetFullPath(root));
            }
        }
        return roots;
    }
}
