using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using Peft.Core;
using Xunit;

namespace Peft.Boundary.Tests;

/// <summary>The tables of docs/adapters.md: every option is there, every test they name exists, every recorded case is named.</summary>
public sealed partial class AdapterDocumentTests
{
    private static string Document => RepositoryFiles.Text("docs/adapters.md");

    // The last cell of each row of the tables that say where something is tested.
    private static IEnumerable<string> Places => Document.Split('\n').Where(l => l.StartsWith('|')).Select(l => l.Trim(' ', '|').Split(" | ")).Where(c => c.Length == 3 && c[2].Contains('`')).Select(c => c[2]);

    private static IReadOnlyList<string> Named => [.. Places.SelectMany(p => Code().Matches(p).Select(m => m.Groups[1].Value))];

    private static IReadOnlyList<string> Cases => [.. RepositoryFiles.All.Where(f => f.StartsWith("tests/goldens/peft/", StringComparison.Ordinal)).Select(f => f.Split('/')).Where(p => p.Length > 4 && !p[3].StartsWith('_')).Select(p => p[3]).Distinct()];

    [Fact]
    public void Every_test_they_name_exists()
    {
        var classes = RepositoryFiles.Sources("tests").Select(f => Path.GetFileNameWithoutExtension(f)).ToHashSet();
        Assert.True(Named.Count > 40, "The tables were not found.");
        Check.None(Named.Where(n => n.EndsWith("Tests", StringComparison.Ordinal) ? !classes.Contains(n) : !Cases.Any(c => Matches(n, c))));
    }

    [Fact]
    public void Every_recorded_case_is_named_by_a_row()
        => Check.None(Cases.Where(c => !Named.Any(n => Matches(n, c))));

    [Fact]
    public void Every_field_of_the_settings_is_in_them()
    {
        var config = new LoraConfig
        {
            TargetModules = ["q"], TargetParameters = ["w"], LayerReplication = [(0, 1)], EnsureWeightTying = true, LoraBOwnBias = true, Loftq = new LoftqSettings(4, 1), Init = LoraInit.Loftq,
            TrainableTokens = new Dictionary<string, IReadOnlyList<long>> { [""] = [1] }, ModulesToSave = ["head"], ExcludeModules = ["v"],
        };
        string document = Document;
        Check.None(JsonNode.Parse(AdapterConfigJson.Write(config))!.AsObject().Select(f => f.Key).Where(field => !document.Contains($"`{field}`", StringComparison.Ordinal)));
    }

    private static bool Matches(string pattern, string name) => Regex.IsMatch(name, "^" + Regex.Escape(pattern).Replace("\\*", ".*", StringComparison.Ordinal) + "$");

    [GeneratedRegex("`([^`]+)`")]
    private static partial Regex Code();
}
