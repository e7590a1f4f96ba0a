using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

/// <summary>Tensors beyond 2 GB (spans) and 4 GB (zip's 32 bits). Explicit: they take 9 GB of memory and 5 GB of disk for some seconds.</summary>
public sealed class LargeTensorTests : IDisposable
{
    private const long Count = (1L << 32) + 12345;
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory(Explicit = true)]
    [InlineData("large.safetensors")]
    [InlineData("large.bin")]
    public void They_are_written_loaded_and_mapped(string name)
    {
        using var scope = NewDisposeScope();
        string path = _folder.File(name);
        var large = zeros([Count], dtype: ScalarType.Byte);
        long[] places = [0, 1L << 31, (1L << 32) + 7, Count - 1];
        foreach (long place in places) large[place] = (byte)(place % 251 + 1);
        var tensors = new Dictionary<string, Tensor> { ["large"] = large, ["after"] = tensor(new byte[] { 1, 2, 3 }), ["last"] = tensor(new byte[] { 4 }) };
        if (name.EndsWith(".bin")) PickleWriter.Write(path, tensors);
        else SafetensorsWriter.Write(path, tensors);
        large.Dispose();
        using var reader = TensorFiles.Open(path);
        foreach (var got in new[] { reader.Map("large"), reader.Load("large") })
        {
            Assert.Equal(Count, got.numel());
            foreach (long place in places) Assert.Equal((byte)(place % 251 + 1), got[place].ToByte());
            Assert.Equal(places.Length, got.count_nonzero().ToInt64());
            got.Dispose();
        }
        Assert.Equal(4, reader.Load("last").In(scope).ToByte());
        if (Environment.GetEnvironmentVariable("PEFT_KEEP_LARGE") is { } keep) File.Copy(path, keep, overwrite: true);
    }
}
