using Xunit;

namespace Peft.Boundary.Tests;

public sealed class FileLengthTests
{
    private const int MostLines = 400;

    /// <summary>Longer files, each with the reason why it is not cut.</summary>
    private static readonly Dictionary<string, string> Longer = [];

    [Fact]
    public void Source_files_are_short()
    {
        var tooLong = from file in RepositoryFiles.Sources("src", "tests", "samples", "benchmarks")
                      let lines = RepositoryFiles.Text(file).Count(c => c == '\n')
                      where lines > MostLines && !Longer.ContainsKey(file)
                      select $"{file}: {lines} lines";
        Check.None(tooLong);
    }

    [Fact]
    public void Files_listed_as_longer_still_are()
        => Assert.All(Longer, entry => Assert.True(
            RepositoryFiles.Text(entry.Key).Count(c => c == '\n') > MostLines, $"{entry.Key} is short now: take it off the list."));
}
