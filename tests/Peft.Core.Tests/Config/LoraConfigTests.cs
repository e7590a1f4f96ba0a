using Xunit;

namespace Peft.Core.Tests;

public sealed class LoraConfigTests
{
    private static LoraConfig Good => new() { Rank = 3, Alpha = 7, TargetModules = ["first"] };

    public static TheoryData<string, LoraConfig> Bad => new()
    {
        { "r must be at least 1, got 0", Good with { Rank = 0 } },
        { "r must be at least 1, got -2", Good with { Rank = -2 } },
        { "rank_pattern['first'] must be at least 1, got 0", Good with { RankPattern = new Dictionary<string, int> { ["first"] = 0 } } },
        { "lora_alpha must be above 0, got 0", Good with { Alpha = 0 } },
        { "lora_alpha must be above 0, got -3", Good with { Alpha = -3 } },
        { "alpha_pattern['first'] must be above 0, got NaN", Good with { AlphaPattern = new Dictionary<string, double> { ["first"] = double.NaN } } },
        { "lora_dropout must be at least 0 and below 1, got 1", Good with { Dropout = 1 } },
        { "lora_dropout must be at least 0 and below 1, got 1.5", Good with { Dropout = 1.5 } },
        { "lora_dropout must be at least 0 and below 1, got -0.1", Good with { Dropout = -0.1 } },
        { "target_modules is missing; name the layers, e.g. [\"q_proj\", \"v_proj\"], or use TargetModules.AllLinear", Good with { TargetModules = null } },
        { "layers_to_transform needs target_modules as a list; put the layer numbers into the regular expression instead", Good with { TargetModules = TargetModules.Regex(".*q"), LayersToTransform = [1] } },
        { "layers_pattern is set but layers_to_transform is not", Good with { LayersPattern = ["layers"] } },
        { "lora_bias does not go with use_dora; set one of them to false", Good with { LoraBOwnBias = true, UseDora = true } },
        { "lora_bias goes with init_lora_weights true or false only, got 'pissa'", Good with { LoraBOwnBias = true, Init = LoraInit.Pissa } },
        { "target_parameters cannot have dropout; set lora_dropout to 0", Good with { TargetParameters = ["first.weight"], Dropout = 0.1 } },
        { "target_parameters cannot be used with use_dora", Good with { TargetParameters = ["first.weight"], UseDora = true } },
        { "target_parameters cannot be used with lora_bias", Good with { TargetParameters = ["first.weight"], LoraBOwnBias = true } },
        { "init_lora_weights 'magic' is not known; use true, false, gaussian, pissa, pissa_niter_N, olora, orthogonal or loftq", Good with { Init = new LoraInit("magic") } },
        {
            "init_lora_weights 'EVA' takes its factors from training data, which is not there; use true, pissa or olora. An adapter that was trained with it is plain LoRA and loads",
            Good with { Init = new LoraInit("EVA") }
        },
        { DataInit("corda"), Good with { Init = new LoraInit("corda") } },
        { DataInit("lora_ga"), Good with { Init = new LoraInit("lora_ga") } },
        { DataInit("mica"), Good with { Init = new LoraInit("mica") } },
        { "init_lora_weights 'orthogonal' needs even ranks", Good with { Init = LoraInit.Orthogonal } },
        { "loftq_config must have 2, 4 or 8 bits and at least 1 round, got 3 bits and 0", Good with { Init = LoraInit.Loftq, Loftq = new LoftqSettings(3, 0) } },
        { "layer_replication has the empty or negative range [2, 2)", Good with { LayerReplication = [(2, 2)] } },
    };

    private static string DataInit(string word)
        => $"init_lora_weights '{word}' takes its factors from training data, which is not there; use true, pissa or olora. Merge an adapter that was trained with it into its base with PEFT, and load the merged model";

    [Theory, MemberData(nameof(Bad))]
    public void What_cannot_be_is_said(string problem, LoraConfig config)
    {
        Assert.Equal([problem], config.Problems());
        var e = Assert.Throws<InvalidLoraConfigException>(config.Validate);
        Assert.Equal($"LoraConfig: {problem}.", e.Message);
    }

    [Theory]
    [InlineData("target_modules")]
    [InlineData("exclude_modules")]
    [InlineData("rank_pattern")]
    [InlineData("alpha_pattern")]
    [InlineData("layers_pattern")]
    public void A_pattern_that_is_no_regular_expression_is_named(string field)
    {
        const string bad = "(q";
        var config = field switch
        {
            "target_modules" => Good with { TargetModules = TargetModules.Regex(bad) },
            "exclude_modules" => Good with { ExcludeModules = TargetModules.Regex(bad) },
            "rank_pattern" => Good with { RankPattern = new Dictionary<string, int> { [bad] = 2 } },
            "alpha_pattern" => Good with { AlphaPattern = new Dictionary<string, double> { [bad] = 2 } },
            _ => Good with { LayersToTransform = [0], LayersPattern = [bad] },
        };
        Assert.StartsWith($"{field} is no valid regular expression: '(q': ", Assert.Single(config.Problems()));
    }

    [Fact]
    public void All_problems_are_said_at_once()
        => Assert.Equal(3, (Good with { Rank = 0, Alpha = -1, Dropout = 2 }).Problems().Count);

    [Fact]
    public void Scaling_is_alpha_over_rank_or_its_root()
    {
        Assert.Equal(7 / 3.0, Good.ScalingOf(3, 7));
        Assert.Equal(7 / Math.Sqrt(3), (Good with { UseRsLora = true }).ScalingOf(3, 7));
    }
}
