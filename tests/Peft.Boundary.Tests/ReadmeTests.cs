using System.Text.RegularExpressions;
using Peft.Testing;
using Xunit;

namespace Peft.Boundary.Tests;

public sealed partial class ReadmeTests
{
    [Fact]
    public void The_program_in_the_README_is_the_one_that_is_compiled()
        => Assert.Contains(RepositoryFiles.Text("samples/QuickStart/Program.cs").ReplaceLineEndings("\n").TrimEnd(),
            RepositoryFiles.Text("README.md").ReplaceLineEndings("\n"), StringComparison.Ordinal);

    [Fact]
    public void Links_between_the_documents_lead_to_files()
    {
        var broken = from file in RepositoryFiles.All
                     where file.EndsWith(".md", StringComparison.Ordinal) && !file.StartsWith("tests/goldens/", StringComparison.Ordinal)
                     from Match link in Link().Matches(RepositoryFiles.Text(file))
                     let target = link.Groups[1].Value
                     where !target.Contains("://", StringComparison.Ordinal)
                     let path = Path.Combine(Repository.Root, Path.GetDirectoryName(file)!, target)
                     where !File.Exists(path) && !Directory.Exists(path)
                     select $"{file}: {target}";
        Check.None(broken);
    }

    [GeneratedRegex(@"\]\(([^)#\s]+)(?:#[^)]*)?\)")]
    private static partial Regex Link();
}
