using System.Diagnostics;
using Peft.Core;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests;

/// <summary>What newcomers try first: each refusal says what is wrong and what to do.</summary>
[Trait("Fault", "use-2")]
public sealed class LoadRefusalTests
{
    [Fact]
    public void A_name_of_the_hub_is_answered_with_the_command_that_downloads_it()
    {
        var e = Assert.Throws<CheckpointException>(() => LlavaModel.Load("liuhaotian/llava-v1.5-7b"));
        Assert.Equal("The checkpoint liuhaotian/llava-v1.5-7b can't be used: there is no such folder. It has the form of a name on the Hugging Face hub, from which nothing is downloaded here: "
            + "run `hf download liuhaotian/llava-v1.5-7b --local-dir llava-v1.5-7b` and give that folder.", e.Message);
        Assert.Equal("liuhaotian/llava-v1.5-7b", e.Folder);
        string missing = Path.Combine(Path.GetTempPath(), "no-such-checkpoint");
        Assert.Equal($"The checkpoint {missing} can't be used: there is no such folder. Looked for {missing}; give the folder that holds config.json and the weights.",
            Assert.Throws<CheckpointException>(() => LlavaModel.Load(missing)).Message);
    }

    [Fact]
    public void A_name_of_the_hub_as_vision_tower_too()
    {
        using var folder = new TemporaryFolder();
        using var tiny = TinyLlava.Create(3);
        tiny.Model.SavePretrained(folder.Path);
        var arguments = LlavaCommandLine.Parse(["--model_name_or_path", folder.Path, "--vision_tower", "openai/clip-vit-large-patch14-336", "--data_path", "none.json", "--output_dir", folder.File("out"), "--version", "v1", "--mm_use_im_patch_token", "False"]);
        var e = Assert.Throws<VisionTowerNotFoundException>(() => LlavaRecipe.PrepareModel(arguments));
        Assert.Contains("the vision tower 'openai/clip-vit-large-patch14-336' is no folder with a config.json", e.Message, StringComparison.Ordinal);
        Assert.Contains("`hf download openai/clip-vit-large-patch14-336 --local-dir clip-vit-large-patch14-336`", e.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(ScalarType.Int8), InlineData(ScalarType.Bool), InlineData(ScalarType.Int64), InlineData(ScalarType.ComplexFloat32)]
    public void Dtypes_in_which_nothing_computes_are_refused(ScalarType dtype)
    {
        var e = Assert.Throws<InvalidConfigurationException>(() => LlavaModel.Load("anywhere", new LlavaLoadOptions { Dtype = dtype, ProjectorDtype = dtype }));
        Assert.Equal([.. new[] { "Dtype", "ProjectorDtype" }.Select(n => $"{n} is {dtype}, in which no model computes; choose Float32, BFloat16 or Float16, and Quantization for weights in 4 or 8 bits")], e.Problems);
        Assert.EndsWith("\nCorrect the options.", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void CUDA_is_refused_where_there_is_none()
    {
        Assert.SkipWhen(cuda.is_available(), "has a CUDA device");
        var e = Assert.Throws<InvalidConfigurationException>(() => LlavaModel.Load("anywhere", new LlavaLoadOptions { Device = new Device(DeviceType.CUDA, 0) }));
        Assert.StartsWith("Device is CUDA, and this process has none; reference TorchSharp-cuda-windows or TorchSharp-cuda-linux", Assert.Single(e.Problems), StringComparison.Ordinal);
    }

    [Fact]
    public void A_tiny_model_without_libtorch_names_the_package_to_add()
    {
#if DEBUG
        const string Configuration = "Debug";
#else
        const string Configuration = "Release";
#endif
        using var folder = new TemporaryFolder();
        // The program alone, without its native files.
        foreach (string file in Directory.EnumerateFiles(Path.Combine(Repository.Root, "tests", "Peft.TrainingProbe", "bin", Configuration, "net10.0")))
            File.Copy(file, folder.File(Path.GetFileName(file)));
        var start = new ProcessStartInfo("dotnet", [folder.File("Peft.TrainingProbe.dll"), "tiny"]) { RedirectStandardOutput = true, RedirectStandardError = true };
        using var process = Process.Start(start)!;
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        Assert.Equal(1, process.ExitCode);
        Assert.StartsWith("libtorch ", output, StringComparison.Ordinal);
        Assert.Contains($"Add a libtorch package to the application: {PeftEnvironment.LibtorchPackage} for this machine's CPU", output, StringComparison.Ordinal);
    }
}
