using Peft.Core;
using Xunit;

namespace Peft.Llava.Tests;

public sealed class LlavaModelAdaptersTests
{
    [Fact]
    public void All_linear_names_are_those_of_the_language_model()
    {
        using var tiny = TinyLlava.Create();
        Assert.Equal(["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"], tiny.Model.FindAllLinearNames());
    }

    [Fact]
    public void A_bare_name_leaves_the_tower_alone_and_a_full_path_reaches_it()
    {
        using var tiny = TinyLlava.Create();
        var bare = PeftModel.Preview(tiny.Model, new LoraConfig { Rank = 2, Alpha = 3, TargetModules = tiny.Model.FindAllLinearNames() });
        Assert.Equal(2 * 7, bare.Targets.Count);
        Assert.All(bare.Targets, t => Assert.StartsWith("model.layers.", t.Path, StringComparison.Ordinal));

        const string inTower = "model.vision_tower.vision_tower.vision_model.encoder.layers.0.self_attn.q_proj";
        var full = PeftModel.Preview(tiny.Model, new LoraConfig { Rank = 2, Alpha = 3, TargetModules = [inTower, "v_proj"] });
        Assert.Equal([inTower], full.Targets.Select(t => t.Path).Where(p => p.Contains("vision", StringComparison.Ordinal)));
    }

    [Fact]
    public void Parameters_have_the_names_that_PEFT_gives_them()
    {
        using var tiny = TinyLlava.Create();
        using var peft = tiny.Model.GetPeftModel(new LoraConfig { Rank = 2, Alpha = 3, TargetModules = ["q_proj"] });
        Assert.Equal(
            ["base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight", "base_model.model.model.layers.0.self_attn.q_proj.lora_B.default.weight"],
            peft.TrainableParameters().Take(2).Select(p => p.Name));
    }
}
