using Peft.Core;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Vision;

/// <summary>What a training step uses once does not stay resident: the mapped weights of a frozen tower.</summary>
public sealed class TowerMemoryTests
{
    [Fact]
    public void A_frozen_towers_mapped_weights_leave_memory_after_a_training_pass_and_what_was_written_to_them_stays()
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "asks the kernel for pages");
        using var model = LlavaModel.Load(Path.Combine(Goldens.Roots[0], "bitsandbytes", "_base_llava"));
        var tower = model.VisionTower!;
        using var pixels = randn([3, 3, 28, 28], ScalarType.BFloat16);

        using (no_grad()) tower.call(pixels).Dispose();
        Assert.True(MappedPages.ReleaseUnwritten(tower.parameters()) > 0, "the tower is not mapped, or its pages are not resident");

        Tensor wanted;
        using (no_grad())
        {
            foreach (var weight in tower.parameters().Where(p => p.dim() == 2)) weight.mul_(1.5f);
            wanted = tower.call(pixels);
        }
        using var trained = tower.call(pixels);
        Assert.Equal(0, MappedPages.ReleaseUnwritten(tower.parameters()));
        using var again = tower.call(pixels);
        using var _ = wanted;
        TensorAssert.Equal(wanted, trained, "where gradients are recorded");
        TensorAssert.Equal(wanted, again, "after its pages were given back");
    }
}
