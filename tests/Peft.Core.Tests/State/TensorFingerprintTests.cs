using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

public sealed class TensorFingerprintTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void The_index_tells_names_dtypes_and_shapes_apart_and_the_content_values()
    {
        using var scope = NewDisposeScope();
        var a = Both(("w", arange(6f).view(2, 3)), ("b", ones(2)));
        Assert.Equal(a, Both(("b", ones(2)), ("w", arange(6f).view(2, 3))));
        var value = Both(("w", arange(6f).view(2, 3) + 1), ("b", ones(2)));
        Assert.Equal(a.Index, value.Index);
        Assert.NotEqual(a.Content, value.Content);
        Assert.NotEqual(a.Index, Both(("w", arange(6f).view(3, 2)), ("b", ones(2))).Index);
        Assert.NotEqual(a.Index, Both(("v", arange(6f).view(2, 3)), ("b", ones(2))).Index);
        Assert.NotEqual(a.Index, Both(("w", arange(6f).view(2, 3)), ("b", ones(2).to(ScalarType.BFloat16))).Index);
        Assert.Equal(64, a.Index.Length);
    }

    [Fact]
    public void Fingerprints_do_not_change_from_version_to_version()
    {
        using var scope = NewDisposeScope();
        var (index, content) = Both(("w", arange(6f).view(2, 3)), ("b", ones(2).to(ScalarType.BFloat16)));
        Assert.Equal("b43f3181c39672cf0996b69a4846285b425fb1f5c2f7ba91840694d75876c470", index);
        Assert.Equal("d30efb77a614a6a6bc18392e2fd3f6a79a7fab552f80873b7f4f05d5b18a7211", content);
    }

    private (string Index, string Content) Both(params (string Name, Tensor Value)[] tensors)
    {
        var pairs = tensors.ToDictionary(t => t.Name, t => t.Value);
        string safe = _folder.File("x.safetensors"), pickle = _folder.File("x.bin");
        SafetensorsWriter.Write(safe, pairs);
        PickleWriter.Write(pickle, pairs);
        using var one = TensorFiles.Open(safe);
        using var two = TensorFiles.Open(pickle);
        Assert.Equal(TensorFingerprint.OfIndex(one), TensorFingerprint.OfIndex(two));
        Assert.Equal(TensorFingerprint.OfContent(one), TensorFingerprint.OfContent(two));
        Assert.Equal(TensorFingerprint.OfContent(one), TensorFingerprint.OfContent(pairs));
        return (TensorFingerprint.OfIndex(one), TensorFingerprint.OfContent(one));
    }
}
