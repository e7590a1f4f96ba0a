using Peft.Testing;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Core.Tests;

public sealed class AdapterPlanTests
{
    private static readonly LoraConfig Config = new() { Rank = 2, Alpha = 3, TargetModules = ["first", "blocks.1", "down"] };

    [Fact]
    public void A_plan_says_what_would_be_and_changes_nothing()
    {
        using var net = new TinyNet();
        var plan = PeftModel.Preview(net, Config with { RankPattern = new Dictionary<string, int> { ["down"] = 3 } });
        Assert.Equal("first: Linear 7 -> 5, r 2, scaling 1.5, 24 parameters\nblocks.1: Linear 5 -> 5, r 2, scaling 1.5, 20 parameters\n"
            + "tail.down: Linear 9 -> 3, r 3, scaling 1, 36 parameters\n3 layers, 80 parameters", plan.ToString());
        Assert.DoesNotContain(ModuleTree.Modules(net), m => m.Module is IAdapterHost);
    }

    [Fact]
    public void Targets_that_match_nothing_are_named_with_the_names_there_are()
    {
        using var net = new TinyNet();
        var e = Assert.Throws<TargetNotFoundException>(() => AdapterPlan.For(net, Config with { TargetModules = ["qproj"] }));
        Assert.Equal("target_modules [qproj] matches none of the 6 fitting modules. Names present: 0, 1, down, first, narrow, up.", e.Message);
        e = Assert.Throws<TargetNotFoundException>(() => AdapterPlan.For(net, Config with { TargetModules = TargetModules.Regex("fir") }));
        Assert.StartsWith("target_modules [fir] matches none", e.Message);
        e = Assert.Throws<TargetNotFoundException>(() => AdapterPlan.For(net, Config with { TargetModules = ["up"], LayersToTransform = [9] }));
        Assert.StartsWith("target_modules [up in layers 9] matches none", e.Message);
        e = Assert.Throws<TargetNotFoundException>(() => AdapterPlan.For(net, Config with { TargetModules = [], TargetParameters = ["nope.weight"] }));
        Assert.StartsWith("target_parameters [nope.weight] matches none of the 6 fitting modules. Names present: 0.weight,", e.Message);
        e = Assert.Throws<TargetNotFoundException>(() => AdapterPlan.For(net, Config with { ModulesToSave = ["score"] }));
        Assert.StartsWith("modules_to_save [score] matches none", e.Message);
        e = Assert.Throws<TargetNotFoundException>(() => AdapterPlan.For(net, Config with { TrainableTokens = new Dictionary<string, IReadOnlyList<long>> { [""] = [1] } }));
        Assert.StartsWith("trainable_token_indices [embed_tokens] matches none", e.Message);
    }

    [Fact, Trait("Fault", "use-2")]
    public void One_unknown_target_among_known_ones_is_an_error()
    {
        using var net = new TinyNet();
        const string Present = "Names present: 0, 1, down, first, narrow, up.";
        var e = Assert.Throws<TargetNotFoundException>(() => net.GetPeftModel(Config with { TargetModules = ["up", "frist"] }));
        Assert.Equal($"target_modules 'frist' matches nothing in the model. {Present} Probably meant: first for frist.", e.Message);
        Assert.Equal(("target_modules", "target_modules 'frist'"), (e.Field, Assert.Single(e.Wanted)));
        e = Assert.Throws<TargetNotFoundException>(() => net.GetPeftModel(Config with { RankPattern = new Dictionary<string, int> { ["q"] = 2 }, AlphaPattern = new Dictionary<string, double> { ["v"] = 2 } }));
        Assert.Equal($"alpha_pattern['v'] matches nothing in the model; rank_pattern['q'] matches nothing in the model. {Present}", e.Message);
        Assert.Equal("alpha_pattern", e.Field);
    }

    [Fact]
    public void A_module_that_cannot_carry_LoRA_is_named()
    {
        using var net = new TinyNet();
        var e = Assert.Throws<UnsupportedTargetException>(() => AdapterPlan.For(net, Config with { TargetModules = ["norm"] }));
        Assert.Equal("norm: LayerNorm cannot carry LoRA; it works on linear layers, embeddings and two-dimensional convolutions. Name the layers inside it, "
            + "or list it in modules_to_save to train it in full.", e.Message);
        e = Assert.Throws<UnsupportedTargetException>(() => AdapterPlan.For(net, Config with { TargetModules = [], TargetParameters = ["norm.weight"] }));
        Assert.Equal("norm: target_parameters can mean the weight of a linear layer only; use target_modules.", e.Message);
    }

    [Theory, InlineData("first.bias"), InlineData("nope.weight")]
    public void A_parameter_that_is_no_weight_of_a_layer_is_not_passed_over(string parameter)
    {
        using var net = new TinyNet();
        Assert.StartsWith($"target_parameters '{parameter}' matches nothing in the model. Names present: 0, 1, down, first, narrow, up.",
            Assert.Throws<TargetNotFoundException>(() => net.GetPeftModel(new LoraConfig { Rank = 2, Alpha = 3, TargetModules = [], TargetParameters = ["first.weight", parameter] })).Message);
    }

    [Theory]
    [InlineData("", "trainable_token_indices [embed_tokens] matches none of the 6 fitting modules. Names present: 0, 1, down, first, narrow, up.")]
    [InlineData("words", "trainable_token_indices [words] matches none of the 6 fitting modules. Names present: 0, 1, down, first, narrow, up.")]
    public void Rows_of_a_module_that_is_not_there_are_not_passed_over(string module, string message)
    {
        using var net = new TinyNet();
        var config = new LoraConfig { Rank = 2, Alpha = 3, TargetModules = ["first"], TrainableTokens = new Dictionary<string, IReadOnlyList<long>> { [module] = [3] } };
        Assert.Equal(message, Assert.Throws<TargetNotFoundException>(() => net.GetPeftModel(config)).Message);
    }

    [Fact]
    public void A_rank_above_the_layer_is_an_error()
    {
        using var net = new TinyNet();
        var e = Assert.Throws<InvalidLoraConfigException>(() => net.GetPeftModel(Config with { Rank = 6 }));
        Assert.Equal("LoraConfig: r is 6, more than either side of blocks.1 (5 -> 5); a lower rank can do the same.", e.Message);
        using var peft = net.GetPeftModel(Config with { Rank = 4 });
        Assert.Equal(["adapter 'default': r 4 is more than the smaller side of tail.down (9 -> 3)"], peft.Irregularities);
    }

    [Fact]
    public void Python_spellings_of_regular_expressions_are_understood()
    {
        using var net = new TinyNet();
        Assert.Equal(["tail.up", "tail.down"], AdapterPlan.For(net, Config with { TargetModules = TargetModules.Regex(@"(?P<part>tail)\.(up|down)\Z") }).Targets.Select(t => t.Path));
        Assert.Equal(["first"], AdapterPlan.For(net, Config with { TargetModules = TargetModules.Regex(@"(?P<a>f)irst(?!(?P=a))") }).Targets.Select(t => t.Path));
    }

    [Fact]
    public void All_linear_is_every_linear_layer_but_the_head()
    {
        using var net = new TinyNet();
        Assert.Equal(["first", "blocks.0", "blocks.1", "tail.up", "tail.down", "narrow"],
            AdapterPlan.For(net, Config with { TargetModules = TargetModules.AllLinear }).Targets.Select(t => t.Path));
        Assert.Equal(["0", "1", "down", "first", "narrow", "up"], net.FindAllLinearNames());
    }
}
