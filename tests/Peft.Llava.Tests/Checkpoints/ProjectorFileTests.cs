using Peft.Core;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests;

public sealed class ProjectorFileTests
{
    public static IEnumerable<TheoryDataRow<string>> Cases() => Goldens.Rows("model", c => c.Kind == "projector_file");

    [Theory, MemberData(nameof(Cases)), Trait(Goldens.Trait, "model")]
    public void Recorded_file_is_read_into_its_model_and_written_again_byte_for_byte(string folder)
    {
        using var scope = NewDisposeScope();
        var golden = new GoldenCase(folder);
        string path = golden.PathOf(golden.Json.GetProperty("file").GetString()!);
        using var expected = golden.Tensors(golden.Json.GetProperty("expected").GetString()!);
        using var reader = TensorFiles.Open(path);
        string[] names = [.. golden.Json.GetProperty("tensors").EnumerateArray().Select(t => t.GetProperty("name").GetString()!)];
        Assert.Equal(names, reader.Entries.Keys);
        foreach (string name in names) TensorAssert.Equal(expected.Load(name), reader.Load(name), name);

        using var model = GoldenModels.Load(GoldenModels.Sibling(golden, golden.Json.GetProperty("model").GetString()!), ScalarType.Float32);
        ProjectorFile.Load(model, path);
        foreach (var (name, parameter) in model.Parameters(ModelPart.Projector))
            TensorAssert.Equal(expected.Load(name).to(ScalarType.Float32), parameter, name);

        // The output folder that LLaVA had gives the recorded file.
        string relative = golden.Json.GetProperty("file").GetString()!;
        string output = relative.StartsWith("mm_projector/", StringComparison.Ordinal) ? Path.GetFileNameWithoutExtension(relative) : Path.GetDirectoryName(relative)!;
        Assert.Equal(path, ProjectorFile.PathFor(golden.PathOf(output)));
    }

    [Fact]
    public void A_projector_of_another_model_is_refused_with_all_faults_and_changes_nothing()
    {
        using var scope = NewDisposeScope();
        using var tiny = TinyLlava.Create(3);
        using var folder = new TemporaryFolder();
        PickleWriter.Write(folder.File("mm_projector.bin"), new Dictionary<string, Tensor>
        {
            ["model.mm_projector.0.weight"] = ones(2, 3), ["model.mm_projector.4.bias"] = ones(5), ["model.embed_tokens.weight"] = ones(7, 2),
        });
        var before = tiny.Model.Parameters(ModelPart.Projector).ToDictionary(p => p.Name, p => p.Parameter.clone());
        var e = Assert.Throws<CheckpointMismatchException>(() => ProjectorFile.Load(tiny.Model, folder.File("mm_projector.bin")));
        Assert.Equal(["mm_projector.0.bias", "mm_projector.2.weight", "mm_projector.2.bias"], e.MissingTensors);
        Assert.Equal(["model.mm_projector.4.bias"], e.UnexpectedTensors);
        Assert.Equal("model.mm_projector.0.weight: the file has (2, 3), the model wants (32, 24)", Assert.Single(e.ShapeFaults));
        Assert.Equal($"{folder.File("mm_projector.bin")}: 5 tensor(s) do not fit the model that the configuration describes.\n  missing: mm_projector.0.bias\n  missing: mm_projector.2.weight\n"
            + "  missing: mm_projector.2.bias\n  unexpected: model.mm_projector.4.bias\n  shape: model.mm_projector.0.weight: the file has (2, 3), the model wants (32, 24)\n"
            + "Check that config.json and weights belong together and that no shard is missing.", e.Message);
        foreach (var (name, parameter) in tiny.Model.Parameters(ModelPart.Projector)) TensorAssert.Equal(before[name], parameter, name);
    }
}
