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
        long before = ResidentKilobytes.Mapped;
        MappedPages.Release(mapped);
        Assert.True(before - ResidentKilobytes.Mapped > 30_000, "the pages are still resident");
        Assert.Equal(sum, mapped.sum(ScalarType.Float64).ToDouble());
        TensorAssert.Equal(weight, mapped, "read again");
    }

    [Fact]
    public void Pages_that_hold_what_their_file_holds_leave_memory_and_written_ones_keep_what_was_written()
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "reads the kernel's counters");
        using var scope = NewDisposeScope();
        using var folder = new TemporaryFolder();
        string file = Path.Combine(folder.Path, "weights.safetensors");
        var first = arange(4_000_003, dtype: ScalarType.Float32);
        var second = arange(5_000_001, dtype: ScalarType.Float32) * 0.5f;
        SafetensorsWriter.Write(file, new Dictionary<string, Tensor> { ["first"] = first, ["second"] = second });
        using var reader = SafetensorsReader.Open(file);
        using var a = reader.Map("first");
        using var b = reader.Map("second");
        var inMemory = arange(3_000_001, dtype: ScalarType.Float32);
        _ = a.sum().ToDouble() + b.sum().ToDouble();
        a[2_345_678] = -1.5f;
        b.narrow(0, 1_000_001, 500_003).mul_(3f);
        var wantedA = a.clone();
        var wantedB = b.clone();
        long before = ResidentKilobytes.Mapped;

        long released = MappedPages.ReleaseUnwritten([b, inMemory, a]);

        long written = 500_003 * 4;
        // The kernel may itself have dropped the unwritten neighbours of a written page (it maps some files 2 MB at a time).
        Assert.InRange(released, 4 * 9_000_004 - written - (6 << 20), 4 * 9_000_004 - written);
        Assert.True(before - ResidentKilobytes.Mapped > 25_000, "the pages are still resident");
        TensorAssert.Equal(wantedA, a, "one number written");
        TensorAssert.Equal(wantedB, b, "a range written");
        TensorAssert.Equal(arange(3_000_001, dtype: ScalarType.Float32), inMemory, "of no file");
    }

    [Fact]
    public void Tensors_of_no_file_are_left_alone()
    {
        using var scope = NewDisposeScope();
        var heap = arange(1_000_003, dtype: ScalarType.Float32);
        Assert.Equal(0, MappedPages.ReleaseUnwritten([heap, heap.narrow(0, 7, 100_001), empty(0)]));
        TensorAssert.Equal(arange(1_000_003, dtype: ScalarType.Float32), heap, "of no file");
    }
}
