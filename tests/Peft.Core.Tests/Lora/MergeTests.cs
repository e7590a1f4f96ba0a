using Peft.Testing;
using TorchSharp;
using TorchSharp.Modules;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

/// <summary>One adapter merged into a dense weight: the sum's bits and the report's norms, against the operators.</summary>
public sealed class MergeTests
{
    private const string Path = "projection";

    public static TheoryData<ScalarType, bool, VectorWidth> Cases()
    {
        var cases = new TheoryData<ScalarType, bool, VectorWidth>();
        foreach (var width in Enum.GetValues<VectorWidth>())
            foreach (var dtype in new[] { ScalarType.Float32, ScalarType.BFloat16 })
                foreach (bool safe in new[] { true, false }) cases.Add(dtype, safe, width);
        return cases;
    }

    [Theory, MemberData(nameof(Cases)), Trait("Level", "any")]
    public void The_weight_is_the_operators_bit_for_bit_and_the_report_has_their_norms(ScalarType dtype, bool safe, VectorWidth width)
    {
        using var forced = VectorLoops.ForceWidth(width);
        using var scope = NewDisposeScope();
        // 34,071 elements: several chunks of the kernel, the last of an odd length.
        using var net = nn.Sequential((Path, nn.Linear(277, 123)));
        net.to(dtype);
        using var peft = Adapted(net);
        var weight = peft.Layers.Single().BaseWeight(dtype);
        var delta = peft.Layers.Single().DeltaWeight("default");
        Assert.Equal(ScalarType.Float32, delta.dtype);
        var wanted = safe ? weight + delta.to(dtype) : (weight + delta).to(dtype);
        var exact = weight.to(ScalarType.Float32) + delta;
        double[] norms = [.. new[] { weight.to(ScalarType.Float32), exact - weight, wanted.to(ScalarType.Float32) - exact }.Select(t => t.to(ScalarType.Float64).norm().ToDouble())];

        var report = peft.Merge(safe: safe).Layers.Single();

        TensorAssert.Equal(wanted, peft.Layers.Single().BaseWeight(dtype), "merged");
        Assert.Equal(norms[0], report.WeightNorm, norms[0] * 5e-6);
        Assert.Equal(norms[1], report.DeltaNorm, norms[1] * 5e-6);
        Assert.Equal(norms[2], report.RoundingNorm, norms[2] * 5e-6 + 1e-12);
        peft.Unmerge();
        TensorAssert.Equal(weight, peft.Layers.Single().BaseWeight(dtype), "unmerged");
    }

    [Theory]
    [InlineData(0, 7)]
    [InlineData(122, 276)]      // among the last elements, which fill no vector
    public void A_sum_beyond_the_largest_number_is_refused_wherever_it_stands_and_nothing_changes(int row, int column)
    {
        using var scope = NewDisposeScope();
        using var net = nn.Sequential((Path, nn.Linear(277, 123)));
        using var peft = Adapted(net);
        var layer = peft.Layers.Single();
        using (no_grad())
        {
            var huge = layer.BaseWeight(ScalarType.Float32);
            huge[row, column] = float.MaxValue;
            ((LoraLinear)layer).BaseLayer.OverwriteWeight(huge);
            layer.Adapters["default"].A.fill_(1e19f);
            layer.Adapters["default"].B.fill_(1e19f);
        }
        var before = layer.BaseWeight(ScalarType.Float32);
        Assert.Contains(Path, Assert.Throws<NonFiniteWeightsException>(() => peft.Merge()).Message);
        TensorAssert.Equal(before, layer.BaseWeight(ScalarType.Float32), "refused");
    }

    [Fact]
    public void A_sum_of_two_adapters_beyond_the_largest_number_is_refused_and_nothing_changes()
    {
        using var scope = NewDisposeScope();
        using var net = nn.Sequential((Path, nn.Linear(7, 5)));
        using var peft = Adapted(net);
        peft.AddAdapter("second", new LoraConfig { Rank = 2, Alpha = 3, TargetModules = TargetModules.Names([Path]) });
        var layer = peft.Layers.Single();
        using (no_grad())
        {
            // Each one's own delta is finite: 3 * 1e19 * 5e18 * 5 / 3 = 2.5e38.
            foreach (var adapter in layer.Adapters.Values)
            {
                adapter.A.fill_(1e19f);
                adapter.B.fill_(adapter.Name == "second" ? 8.3e18f : 5e18f);
            }
        }
        var before = layer.BaseWeight(ScalarType.Float32);
        Assert.Equal($"Merge: 1 tensor(s) hold NaN or infinity: {Path}. The adapter is broken; use an earlier checkpoint.",
            Assert.Throws<NonFiniteWeightsException>(() => peft.Merge(["default", "second"])).Message);
        TensorAssert.Equal(before, layer.BaseWeight(ScalarType.Float32), "refused");
        Assert.Empty(peft.MergedAdapters);
        peft.Merge(["default"]);
    }

    private static PeftModel Adapted(Sequential net)
    {
        var peft = net.GetPeftModel(new LoraConfig { Rank = 3, Alpha = 5, TargetModules = TargetModules.Names([Path]) });
        TinyNet.Randomise(peft);
        return peft;
    }
}
