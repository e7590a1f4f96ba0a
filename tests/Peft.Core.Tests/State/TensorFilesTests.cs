using Peft.Testing;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

public sealed class TensorFilesTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Formats_are_told_by_content()
    {
        using var scope = NewDisposeScope();
        SafetensorsWriter.Write(_folder.File("weights.bin"), [new NamedTensor("s", ones(2))]);
        PickleWriter.Write(_folder.File("weights.safetensors"), [new("p", ones(2))]);
        using var safe = TensorFiles.Open(_folder.File("weights.bin"));
        Assert.IsType<SafetensorsReader>(safe);
        using var pickle = TensorFiles.Open(_folder.File("weights.safetensors"));
        Assert.IsType<PickleReader>(pickle);
        File.WriteAllBytes(_folder.File("old.bin"), [0x80, 2, 0x8a, 10]);
        Assert.StartsWith(_folder.File("old.bin") + ": it is no zip file: ", Assert.Throws<PickleFormatException>(() => TensorFiles.Open(_folder.File("old.bin"))).Message);
    }

    /// <summary>A header of 640 bytes begins like an old pickle, one of 19280 like a zip file.</summary>
    [Theory]
    [InlineData(640)]
    [InlineData(19280)]
    public void A_header_of_any_length_is_a_header(int length)
    {
        string path = _folder.File("model.safetensors");
        File.WriteAllBytes(path, [.. BitConverter.GetBytes((long)length), .. System.Text.Encoding.ASCII.GetBytes("{}".PadRight(length))]);
        using var reader = TensorFiles.Open(path);
        Assert.IsType<SafetensorsReader>(reader);
    }

    [Fact]
    public void A_folder_gives_its_model_and_safetensors_first()
    {
        using var scope = NewDisposeScope();
        PickleWriter.Write(_folder.File("pytorch_model.bin"), [new("p", ones(2))]);
        using (var reader = TensorFiles.Open(_folder.Path)) Assert.Equal(["p"], reader.Entries.Keys);
        SafetensorsWriter.Write(_folder.File("model.safetensors"), [new NamedTensor("s", ones(2))]);
        using (var reader = TensorFiles.Open(_folder.Path)) Assert.Equal(["s"], reader.Entries.Keys);
    }

    [Fact]
    public void A_folder_without_a_model_tells_what_it_holds()
    {
        const string wanted = "holds no model (model.safetensors, model.safetensors.index.json, pytorch_model.bin, pytorch_model.bin.index.json), but ";
        Assert.Equal($"{_folder.Path} {wanted}no files. Check the folder, or name the file itself.",
            Assert.Throws<TensorFileNotFoundException>(() => TensorFiles.Open(_folder.Path)).Message);
        File.WriteAllText(_folder.File("adapter_model.safetensors"), "");
        File.WriteAllText(_folder.File("adapter_config.json"), "");
        Assert.Equal($"{_folder.Path} {wanted}adapter_config.json, adapter_model.safetensors. Check the folder, or name the file itself.",
            Assert.Throws<TensorFileNotFoundException>(() => TensorFiles.Open(_folder.Path)).Message);
    }

    [Fact]
    public void A_pointer_of_git_lfs_is_recognised()
    {
        string path = _folder.File("model.safetensors");
        File.WriteAllText(path, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n");
        Assert.Equal($"{path} is a pointer of Git LFS and not the file itself. Fetch the file: git lfs pull.",
            Assert.Throws<TensorFileNotFoundException>(() => TensorFiles.Open(path)).Message);
    }

    [Fact]
    public void A_missing_path_is_named()
        => Assert.Equal($"{_folder.File("none")} does not exist. Check the path.",
            Assert.Throws<TensorFileNotFoundException>(() => TensorFiles.Open(_folder.File("none"))).Message);
}
