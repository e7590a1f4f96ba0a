using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

public sealed class MappedPagesTests
{
    [Fact]
    public void Released_pages_of_a_mapped_tensor_leave_memory_and_are_read_again_from_the_file()
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "reads the kernel's counters");
        using var scope = NewDisposeScope();
        using var folder = new TemporaryFolder();
        string file = Path.Combine(folder.Path, "weights.safetensors");
        var weight = arange(8_000_003, dtype: ScalarType.Float32);
        SafetensorsWriter.Write(file, new Dictionary<string, Tensor> { ["weight"] = weight });
        using var reader = SafetensorsReader.Open(file);
        using var mapped = reader.Map("weight");
        double sum = mapped.sum(ScalarType.Float64).ToDouble();
        long before = MappedKilobytes();
        MappedPages.Release(mapped);
        Assert.True(before - MappedKilobytes() > 30_000, "the pages are still resident");
        Assert.Equal(sum, mapped.sum(ScalarType.Float64).ToDouble());
        TensorAssert.Equal(weight, mapped, "read again");
    }

    private static long MappedKilobytes()
        => long.Parse(File.ReadLines("/proc/self/status").First(l => l.StartsWith("RssFile:", StringComparison.Ordinal)).Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries)[1]);
}
