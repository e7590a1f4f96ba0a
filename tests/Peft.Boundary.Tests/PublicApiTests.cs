using System.Reflection;
using Peft.Testing;
using PublicApiGenerator;
using Xunit;

namespace Peft.Boundary.Tests;

public sealed class PublicApiTests
{
    private const string ApproveVariable = "PEFT_APPROVE";

    [Theory]
    [InlineData("Peft.Core")]
    [InlineData("Peft.Quantization")]
    [InlineData("Peft.Llava")]
    public void The_public_surface_is_the_approved_one(string package)
    {
        string actual = Assembly.Load(package).GeneratePublicApi(new ApiGeneratorOptions { IncludeAssemblyAttributes = false })
            .ReplaceLineEndings("\n").TrimEnd() + "\n";
        string file = Path.Combine(Repository.Root, "tests", "Peft.Boundary.Tests", "Approved", package + ".txt");
        if (Environment.GetEnvironmentVariable(ApproveVariable) == "1")
        {
            File.WriteAllText(file, actual);
            return;
        }
        string approved = File.Exists(file) ? File.ReadAllText(file).ReplaceLineEndings("\n") : "";
        if (actual == approved) return;
        Assert.Fail($"The public surface of {package} changed. Review the difference; {ApproveVariable}=1 dotnet test tests/Peft.Boundary.Tests "
            + $"writes the new one into {Path.GetRelativePath(Repository.Root, file)}.\n{Difference(approved, actual)}");
    }

    /// <summary>Lines that only one side has, in order.</summary>
    private static string Difference(string approved, string actual)
    {
        var before = approved.Split('\n');
        var after = actual.Split('\n');
        var gone = before.Except(after).Select(line => "- " + line);
        var come = after.Except(before).Select(line => "+ " + line);
        var lines = gone.Concat(come).ToList();
        return lines.Count == 0 ? "(the same lines in another order)" : string.Join('\n', lines);
    }
}
