using Peft.Testing;
using TorchSharp;
using TorchSharp.Modules;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

/// <summary>LoRA on a convolution with groups has PEFT's shapes: A without groups, B with them; what it adds is no weight of the base's shape.</summary>
[Trait("Fault", "lora-4")]
public sealed class GroupedConvolutionTests : IDisposable
{
    private static readonly LoraConfig Config = new() { Rank = 4, Alpha = 7, TargetModules = ["lin"] };

    private readonly DisposeScope _scope = NewDisposeScope();

    public void Dispose() => _scope.Dispose();

    [Fact]
    public void The_output_is_that_of_an_ungrouped_A_and_a_grouped_B()
    {
        using var noGrad = no_grad();
        var conv = nn.Conv2d(6, 10, 3, padding: 1, stride: 2, groups: 2);
        using var one = new OneLayer(conv);
        var x = randn(3, 6, 7, 5);
        var before = conv.call(x);
        using var peft = one.GetPeftModel(Config);
        TinyNet.Randomise(peft);
        var adapter = peft.Layers.Single().Adapters["default"];
        Assert.Equal([4, 6, 3, 3], adapter.A.shape);
        Assert.Equal([10, 2, 1, 1], adapter.B.shape);
        Assert.Equal(4 * 54 + 10 * 2, PeftModel.Preview(one, Config).Parameters);
        var hidden = nn.functional.conv2d(x, adapter.A, null, [2, 2], [1, 1]);
        var wanted = cat([nn.functional.conv2d(hidden.narrow(1, 0, 2), adapter.B.narrow(0, 0, 5)), nn.functional.conv2d(hidden.narrow(1, 2, 2), adapter.B.narrow(0, 5, 5))], 1);
        TensorAssert.Close(before + wanted * (7.0 / 4), peft.Layers.Single().call(x), 1e-5, 1e-5, "output");
        using var folder = new TemporaryFolder();
        var active = peft.Layers.Single().call(x);
        peft.Save(folder.Path);
        peft.Unload();
        using var again = PeftModel.Load(one, folder.Path);
        TensorAssert.Equal(active, again.Layers.Single().call(x), "loaded");
    }

    [Fact]
    public void A_merge_is_refused_and_changes_nothing()
    {
        using var one = new OneLayer(nn.Conv2d(6, 10, 3, groups: 2));
        using var peft = one.GetPeftModel(Config);
        TinyNet.Randomise(peft);
        var before = peft.Layers.Single().BaseWeight(ScalarType.Float32);
        const string message = "Adapter 'default' is on lin, a convolution with groups: what it adds is no weight of the groups' shape, so it cannot be merged; use the adapter unmerged.";
        Assert.Equal(message, Assert.Throws<AdapterStateException>(() => peft.Merge()).Message);
        Assert.Equal(message, Assert.Throws<AdapterStateException>(() => peft.MergeAndUnload()).Message);
        Assert.Equal("What an adapter adds at lin cannot be written as a weight of its 2 groups, so it can be neither merged nor taken apart; use the adapter unmerged.",
            Assert.Throws<AdapterStateException>(() => peft.Layers.Single().DeltaWeight("default")).Message);
        TensorAssert.Equal(before, peft.Layers.Single().BaseWeight(ScalarType.Float32), "base");
    }

    [Fact]
    public void A_rank_that_the_groups_do_not_divide_is_refused_before_anything_changes()
    {
        using var one = new OneLayer(nn.Conv2d(6, 10, 3, groups: 2));
        Assert.Equal("LoraConfig: r is 3 at lin, which has 2 groups; it must be a multiple of them (rank_pattern sets it for this layer alone).",
            Assert.Throws<InvalidLoraConfigException>(() => one.GetPeftModel(Config with { Rank = 3 })).Message);
        Assert.Equal("lin: its 2 groups do not go with use_dora, which needs the adapter's sum with the weight; leave it out (exclude_modules).",
            Assert.Throws<UnsupportedTargetException>(() => one.GetPeftModel(Config with { UseDora = true })).Message);
        Assert.DoesNotContain(ModuleTree.Modules(one), m => m.Module is IAdapterHost);
    }
}
