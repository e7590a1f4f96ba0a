using Xunit;

namespace Peft.Boundary.Tests;

public sealed class ErrorDocumentTests
{
    /// <summary>docs/errors.md has a heading for every public exception under its package's, and none for anything else.</summary>
    [Fact]
    public void Every_exception_has_a_heading()
    {
        var headings = new List<string>();
        string package = "";
        foreach (string line in RepositoryFiles.Text("docs/errors.md").Split('\n'))
        {
            if (line.StartsWith("## ", StringComparison.Ordinal)) package = line[3..].Trim();
            else if (line.StartsWith("### ", StringComparison.Ordinal)) headings.Add($"{package}.{line[4..].Trim()}");
        }
        var types = Packages.All.SelectMany(a => a.GetTypes().Where(t => t.IsPublic && typeof(Exception).IsAssignableFrom(t)))
            .Select(t => t.FullName!).ToList();
        Check.None(types.Except(headings).Select(name => $"{name} has no heading in docs/errors.md")
            .Concat(headings.Except(types).Select(name => $"docs/errors.md has {name}, which is no exception"))
            .Concat(headings.GroupBy(h => h).Where(g => g.Count() > 1).Select(g => $"docs/errors.md has {g.Key} twice")));
    }
}
