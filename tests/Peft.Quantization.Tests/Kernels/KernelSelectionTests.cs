using Peft.Core;
using Xunit;

namespace Peft.Quantization.Tests;

public sealed class KernelSelectionTests
{
    [Fact]
    public void The_best_level_runs_unless_another_is_forced_for_a_while()
    {
        Assert.Equal(KernelSelection.Best, KernelSelection.Current);
        using (KernelSelection.Force(KernelLevel.Scalar))
        {
            using (KernelSelection.Force(KernelLevel.Reference)) Assert.Equal(KernelLevel.Reference, KernelSelection.Current);
            Assert.Equal(KernelLevel.Scalar, KernelSelection.Current);
        }
        Assert.Equal(KernelSelection.Best, KernelSelection.Current);
    }

    [Fact, Trait("Level", "any")]
    public void A_forced_level_of_the_processor_is_followed_unless_the_kernels_own_is_forced()
    {
        foreach (var level in CpuLevels.Supported)
        {
            using var forced = CpuLevels.Force(level);
            var wanted = level switch { CpuLevel.Vector128 => KernelLevel.Vector128, CpuLevel.Avx2 => KernelLevel.Avx2, _ => KernelLevel.Avx512 };
            Assert.Equal(wanted, KernelSelection.Current);
            using (KernelSelection.Force(KernelLevel.Scalar)) Assert.Equal(KernelLevel.Scalar, KernelSelection.Current);
        }
    }

    [Fact]
    public void Forcing_a_level_that_does_not_exist_names_those_that_do()
    {
        var e = Assert.Throws<UnsupportedKernelException>(() => KernelSelection.Force((KernelLevel)99));
        Assert.StartsWith("Kernel level 99 needs instructions that this machine lacks; it can run Reference, Scalar", e.Message, StringComparison.Ordinal);
    }
}
