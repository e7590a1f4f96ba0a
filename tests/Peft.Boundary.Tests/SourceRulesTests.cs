using System.Text.RegularExpressions;
using Xunit;

namespace Peft.Boundary.Tests;

public sealed partial class SourceRulesTests
{
    private static IEnumerable<string> Lines(string[] folders, Regex forbidden)
        => from file in RepositoryFiles.Sources(folders)
           where !file.StartsWith("tests/Peft.Boundary.Tests/", StringComparison.Ordinal)
           from line in RepositoryFiles.Text(file).Split('\n').Select((text, i) => (Text: text, Number: i + 1))
           where forbidden.IsMatch(line.Text)
           select $"{file}:{line.Number}: {line.Text.Trim()}";

    [Fact]
    public void The_libraries_write_to_no_console() => Check.None(Lines(["src"], ConsoleUse()));

    [Fact]
    public void Nothing_is_left_to_do() => Check.None(Lines(["src", "samples", "benchmarks"], LeftOver()));

    [Fact]
    public void The_target_of_an_in_place_copy_is_never_disposed_as_its_result()
        => Check.None(Lines(["src", "samples", "benchmarks", "tests"], DisposedCopy()));

    [Fact]
    public void No_file_has_a_byte_order_mark_or_carriage_returns()
    {
        var strays = from file in RepositoryFiles.Sources("src", "samples", "benchmarks", "tests")
                     let text = RepositoryFiles.Text(file)
                     where text.StartsWith('\ufeff') || text.Contains('\r')
                     select file;
        Check.None(strays);
    }

    [Fact]
    public void No_file_holds_the_marks_of_a_merge()
        => Check.None(from file in RepositoryFiles.All
                      where Path.GetExtension(file) is ".cs" or ".md" or ".csproj" or ".props" or ".txt" && !file.StartsWith("tests/goldens/", StringComparison.Ordinal)
                      where MergeMark().IsMatch(RepositoryFiles.Text(file))
                      select file);

    // The word alone may stand in a comment or a string: a call is meant.
    [GeneratedRegex(@"\bConsole\s*\.\s*\w")]
    private static partial Regex ConsoleUse();

    [GeneratedRegex("^(<{7} |>{7} )", RegexOptions.Multiline)]
    private static partial Regex MergeMark();

    [GeneratedRegex(@"\bTODO\b|\bFIXME\b|\bHACK\b|NotImplementedException")]
    private static partial Regex LeftOver();

    [GeneratedRegex(@"\w_\([^;]*\)\s*\.\s*Dispose\(\)|\busing\s+(var|Tensor)\s+\w+\s*=\s*[^;]*\.(copy_|add_|sub_|mul_|div_|zero_|fill_)\(")]
    private static partial Regex DisposedCopy();
}
