using Xunit;

namespace Peft.Core.Tests;

public sealed class CombinationTests
{
    private static readonly LoraConfig Config = new() { Rank = 2, Alpha = 3, TargetModules = ["first", "down"] };

    [Fact]
    public void What_does_not_fit_is_said_and_nothing_changes()
    {
        using var net = new TinyNet();
        using var peft = net.GetPeftModel(Config, "a");
        peft.AddAdapter("b", Config with { Rank = 3 });
        peft.AddAdapter("dora", Config with { UseDora = true });
        peft.AddAdapter("whole", Config with { TargetModules = ["first"], ModulesToSave = ["blocks.0"] });
        Check("There is nothing to combine; name at least one adapter.", [], []);
        Check("2 adapters have 1 weights; give one for each.", ["a", "b"], [1]);
        Check("2 adapters have 3 weights; give one for each.", ["a", "b"], [1, 2, 3]);
        Check("Linear needs equal ranks, but at first they are 2, 3; use Cat or a type by SVD.", ["a", "b"], [1, 1], CombinationType.Linear);
        Check("TiesSvd prunes and needs a density above 0 and at most 1, got none.", ["a", "b"], [1, 1], CombinationType.TiesSvd);
        Check("DareLinearSvd prunes and needs a density above 0 and at most 1, got 1.5.", ["a", "b"], [1, 1], CombinationType.DareLinearSvd, new() { Density = 1.5 });
        Check("The rank of the combination must be at least 1, got 0.", ["a", "b"], [1, 1], CombinationType.Svd, new() { SvdRank = 0 });
        Check("There is no combination type 77; use one of Linear, Cat, Svd, Ties, TiesSvd, DareLinear, DareTies, DareLinearSvd, DareTiesSvd, MagnitudePrune, MagnitudePruneSvd.", ["a", "b"], [1, 1], (CombinationType)77);
        Check("Adapter 'dora' has use_dora, which cannot be combined; combine adapters of plain LoRA factors.", ["a", "dora"], [1, 1]);
        Check("Adapter 'whole' has modules_to_save, which cannot be combined; combine adapters of plain LoRA factors.", ["a", "whole"], [1, 1]);
        Assert.Contains("There is no adapter 'nope'; there are a, b, dora, whole.", Assert.Throws<AdapterNotFoundException>(() => peft.AddWeightedAdapter(["a", "nope"], [1, 1], "w")).Message, StringComparison.Ordinal);
        Assert.Contains("An adapter cannot be called 'a': the model has an adapter of that name; delete or rename it first.", Assert.Throws<AdapterNameException>(() => peft.AddWeightedAdapter(["a", "b"], [1, 1], "a")).Message, StringComparison.Ordinal);
        Assert.Equal(["a", "b", "dora", "whole"], peft.AdapterNames);

        void Check(string message, string[] adapters, double[] weights, CombinationType type = CombinationType.Cat, CombinationOptions? options = null)
            => Assert.Equal(message, Assert.Throws<AdapterCombinationException>(() => peft.AddWeightedAdapter(adapters, weights, "w", type, options)).Message);
    }

    [Fact]
    public void Side_by_side_is_the_weighted_sum_of_the_effects_also_where_adapters_leave_layers_out()
    {
        using var scope = TorchSharp.torch.NewDisposeScope();
        using var net = new TinyNet();
        using var peft = net.GetPeftModel(Config, "a");
        peft.AddAdapter("b", Config with { Rank = 3, Alpha = 4, TargetModules = ["first", "up"] });
        TinyNet.Randomise(peft);
        peft.AddWeightedAdapter(["a", "b"], [0.5, -2], "both", CombinationType.Cat);
        var layer = peft.LayerAt("first")!;
        Testing.TensorAssert.Close(layer.DeltaWeight("a") * 0.5 - layer.DeltaWeight("b") * 2, layer.DeltaWeight("both"), 1e-5, 0, "first");
        var up = peft.LayerAt("tail.up")!;
        Testing.TensorAssert.Close(up.DeltaWeight("b") * -2, up.DeltaWeight("both"), 1e-5, 0, "tail.up");
        Assert.Equal(5, up.Adapters["both"].Rank);
        Assert.Equal(["first", "tail.up", "tail.down"], peft.ConfigOf("both").TargetModules!);
    }
}
