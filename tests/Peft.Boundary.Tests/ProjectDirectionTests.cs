using System.Reflection;
using System.Xml.Linq;
using Peft.Testing;
using Xunit;

namespace Peft.Boundary.Tests;

public sealed class ProjectDirectionTests
{
    private static IEnumerable<string> References(Assembly assembly) => assembly.GetReferencedAssemblies().Select(a => a.Name!);

    [Fact]
    public void Core_knows_neither_quantisation_nor_llava()
        => Assert.DoesNotContain(References(Packages.Core), name => name is "Peft.Quantization" or "Peft.Llava" or "SkiaSharp" or "Microsoft.ML.Tokenizers");

    [Fact]
    public void Quantisation_does_not_know_llava()
        => Assert.DoesNotContain(References(Packages.Quantization), name => name is "Peft.Llava" or "SkiaSharp" or "Microsoft.ML.Tokenizers");

    [Theory]
    [InlineData("Peft.Core", "")]
    [InlineData("Peft.Quantization", "Peft.Core")]
    [InlineData("Peft.Llava", "Peft.Core,Peft.Quantization")]
    public void Projects_reference_in_one_direction(string project, string allowed)
    {
        var wanted = allowed.Split(',', StringSplitOptions.RemoveEmptyEntries);
        var found = Items(project, "ProjectReference").Select(path => Path.GetFileNameWithoutExtension(path)).Order();
        Assert.Equal(wanted, found);
    }

    [Theory]
    [InlineData("Peft.Core", "Microsoft.Extensions.Logging.Abstractions,TorchSharp")]
    [InlineData("Peft.Quantization", "Microsoft.Extensions.Logging.Abstractions,TorchSharp")]
    [InlineData("Peft.Llava", "BitMiracle.LibTiff.NET,Microsoft.Extensions.Configuration.Abstractions,Microsoft.Extensions.Logging.Abstractions,Microsoft.Extensions.Options,Microsoft.ML.Tokenizers,"
        + "SkiaSharp,SkiaSharp.NativeAssets.Linux.NoDependencies,TorchSharp")]
    public void Packages_depend_on_what_is_listed_and_on_no_libtorch(string project, string allowed)
    {
        var packages = Items(project, "PackageReference").ToList();
        Assert.Contains("TorchSharp", packages);
        Assert.Subset(allowed.Split(',').ToHashSet(), packages.ToHashSet());
    }

    [Fact]
    public void Every_project_is_in_the_solution()
    {
        string solution = RepositoryFiles.Text("Peft.Llava.sln");
        var missing = RepositoryFiles.All.Where(f => f.EndsWith(".csproj", StringComparison.Ordinal))
            .Where(f => !solution.Contains(f.Replace('/', '\\'), StringComparison.Ordinal));
        Check.None(missing);
    }

    [Fact]
    public void No_assembly_opens_its_internals()
        => Assert.All(Packages.All, assembly => Assert.DoesNotContain(
            assembly.GetCustomAttributesData(), a => a.AttributeType.Name == "InternalsVisibleToAttribute"));

    private static IEnumerable<string> Items(string project, string kind)
        => XDocument.Load(Path.Combine(Repository.Root, "src", project, project + ".csproj"))
            .Descendants(kind).Select(item => item.Attribute("Include")!.Value.Replace('\\', '/'));
}
