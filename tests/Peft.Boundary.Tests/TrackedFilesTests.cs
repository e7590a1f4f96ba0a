using System.Text;
using System.Text.RegularExpressions;
using Peft.Testing;
using Xunit;

namespace Peft.Boundary.Tests;

public sealed partial class TrackedFilesTests
{
    private const long MostBytes = 8 << 20;
    private static readonly string[] Binary =
        [".safetensors", ".bin", ".png", ".jpg", ".webp", ".gif", ".bmp", ".tif", ".model", ".pt", ".pth", ".gguf", ".npz"];

    [Fact]
    public void No_file_names_a_machine_or_a_package_source()
    {
        var found = from file in RepositoryFiles.All
                    where !Binary.Contains(Path.GetExtension(file)) && !file.StartsWith("tests/Peft.Boundary.Tests/", StringComparison.Ordinal)
                    from Match match in MachineWord().Matches(Encoding.UTF8.GetString(File.ReadAllBytes(Path.Combine(Repository.Root, file))))
                    select $"{file}: {match.Value}";
        Check.None(found);
    }

    [Fact]
    public void NuGet_config_names_no_source()
        => Assert.DoesNotMatch(@"<add\s", RepositoryFiles.Text("NuGet.config"));

    [Fact]
    public void No_file_is_large()
    {
        var large = from file in RepositoryFiles.All
                    where new FileInfo(Path.Combine(Repository.Root, file)).Length > MostBytes
                    select file;
        Check.None(large);
    }

    [Theory]
    [InlineData("model")]
    [InlineData("images")]
    [InlineData("text")]
    [InlineData("peft")]
    [InlineData("bitsandbytes")]
    [InlineData("training")]
    public void The_recorded_cases_of_an_area_are_there_with_their_README(string area)
    {
        Assert.True(File.Exists(Path.Combine(Repository.Root, "tests", "goldens", area, "README.md")), $"tests/goldens/{area}/README.md is missing.");
        Assert.NotEmpty(Goldens.Cases(area));
    }

    [GeneratedRegex(@"(?<![\w.-])/(?:work|root|home/\w+|Users/\w+)/[\w./-]*|[A-Za-z]:\\Users\\\w+|https?://[\w.-]*(?:nuget\.org/v3|artifactory|pypi\.org/simple)[\w./-]*")]
    private static partial Regex MachineWord();
}
