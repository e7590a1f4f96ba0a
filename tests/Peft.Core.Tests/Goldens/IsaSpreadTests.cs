using Peft.Testing;
using TorchSharp;
using Xunit;
using Xunit.Sdk;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

/// <summary>The rule of the recorded cases for other CPU levels: nothing wider than twice the spread of that quantity, and nothing at the recorded level.</summary>
public sealed class IsaSpreadTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    [Fact]
    public void A_quantity_has_its_own_spread_and_only_on_other_levels()
    {
        var golden = Case();
        Assert.Equal(new IsaSpread(0.5, 0.25), IsaSpread.Of(golden, "right/logits", CpuLevel.Avx2));
        Assert.Equal(new IsaSpread(0.5, 0.25), IsaSpread.Of(golden, "right/logits", CpuLevel.Avx512));
        Assert.Equal(default, IsaSpread.Of(golden, "right/logits", IsaSpread.Recorded));
        Assert.Equal(default, IsaSpread.Of(golden, "left/logits", CpuLevel.Avx2));
    }

    [Fact]
    public void The_root_mean_square_of_a_single_number_is_its_distance()
        => Assert.Equal(new IsaSpread(0.017, 0.017), IsaSpread.Of(Case(), "right/loss", CpuLevel.Avx2));

    [Fact]
    public void A_tolerance_grows_by_twice_the_spread_and_no_further()
    {
        using var scope = NewDisposeScope();
        var spread = new IsaSpread(0.5, 0.25);
        var zero = zeros(4);
        TensorAssert.Close(zero, zero + 1.125f, 0.125, 0, "value", spread);
        string text = Assert.Throws<FailException>(() => TensorAssert.Close(zero, zero + 1.1875f, 0.125, 0, "value", spread)).Message;
        Assert.StartsWith("value: 4 of 4 elements are outside atol 0.125, rtol 0 widened at level ", text, StringComparison.Ordinal);
        Assert.Contains("by 2 x isa_spread (max 0.5, rms 0.25); the worst at flat index 0: expected 0, got 1.1875.", text, StringComparison.Ordinal);
        Assert.Throws<FailException>(() => TensorAssert.Close(zero, zero + 0.25f, 0.125, 0, "value"));

        TensorAssert.Rms(zero, zero + 0.625f, 0.125, "value", spread);
        Assert.Throws<TrueException>(() => TensorAssert.Rms(zero, zero + 0.6875f, 0.125, "value", spread));
        TensorAssert.RelativeRms(zero + 2, zero + 2.75f, 0.125, "value", spread);
        Assert.Throws<TrueException>(() => TensorAssert.RelativeRms(zero + 2, zero + 2.8125f, 0.125, "value", spread));
    }

    [Fact]
    public void The_spread_of_tensors_together_weighs_them_by_their_elements()
        => Assert.Equal(new IsaSpread(3, Math.Sqrt((1 * 4 + 4 * 12) / 16.0)), IsaSpread.Joined([(new IsaSpread(3, 1), 4), (new IsaSpread(2.5, 2), 12)]));

    public void Dispose() => _folder.Dispose();

    private GoldenCase Case()
    {
        File.WriteAllText(Path.Combine(_folder.Path, "case.json"),
            """{"isa_spread": {"right/logits": {"max_abs": 0.5, "rms": 0.25, "settings": []}, "right/loss": {"max_abs": 0.017, "settings": []}}}""");
        return new GoldenCase(_folder.Path);
    }
}
