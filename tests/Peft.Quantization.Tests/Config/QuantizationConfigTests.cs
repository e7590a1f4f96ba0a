using System.Text.Json;
using System.Text.Json.Nodes;
using Peft.Core;
using Peft.Testing;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Quantization.Tests;

public sealed class QuantizationConfigTests
{
    [Theory]
    [InlineData(SkipRule.PathParts, "vision_tower", "model.vision_tower.encoder.layers.0.fc1", true)]
    [InlineData(SkipRule.PathParts, "lm_head", "lm_head", true)]
    [InlineData(SkipRule.PathParts, "head", "lm_head", false)]
    [InlineData(SkipRule.PathParts, "self_attn.q_proj", "model.layers.3.self_attn.q_proj", true)]
    [InlineData(SkipRule.Transformers5, "vision_tower", "model.vision_tower.encoder.layers.0.fc1", false)]
    [InlineData(SkipRule.Transformers5, "model.vision_tower", "model.vision_tower.encoder.layers.0.fc1", true)]
    [InlineData(SkipRule.Transformers5, "model.vision", "model.vision_tower.encoder.layers.0.fc1", false)]
    [InlineData(SkipRule.Transformers5, "head", "lm_head", true)]
    [InlineData(SkipRule.Transformers5, "model.layers.[01]", "model.layers.1.mlp.up_proj", true)]
    [InlineData(SkipRule.Transformers5, "model.layers.[01]", "model.layers.2.mlp.up_proj", false)]
    [InlineData(SkipRule.Substring, "ision", "model.vision_tower.encoder.layers.0.fc1", true)]
    [InlineData(SkipRule.Substring, "mm_projector", "lm_head", false)]
    public void Skip_names_match_by_their_rule(SkipRule rule, string name, string path, bool skipped)
        => Assert.Equal(skipped, (QuantizationConfig.Nf4() with { SkipModules = [name], SkipRule = rule }).Skips(path));

    [Fact]
    public void A_dtype_without_a_name_in_the_file_is_refused()
        => Assert.Equal("dtype Float64 cannot be quantised from or computed in; use Float32, BFloat16 or Float16 (cast with .to(dtype) first).",
            Assert.Throws<UnsupportedWeightDtypeException>(() => QuantizationConfigJson.Write(QuantizationConfig.Nf4() with { ComputeDtype = TorchSharp.torch.ScalarType.Float64 })).Message);

    [Fact]
    public void By_default_projector_head_and_tower_stay_and_a_list_of_one_s_own_takes_their_place()
    {
        var config = QuantizationConfig.Nf4();
        Assert.True(config.Skips("model.mm_projector.0"));
        Assert.True(config.Skips("lm_head"));
        Assert.True(config.Skips("model.vision_tower.vision_tower.vision_model.encoder.layers.0.mlp.fc1"));
        Assert.False(config.Skips("model.layers.0.mlp.up_proj"));
        Assert.False((config with { SkipModules = ["mm_projector"] }).Skips("lm_head"));
    }

    [Fact]
    public void All_problems_are_told_at_once()
    {
        var config = new QuantizationConfig { Bits = 4, QuantType = new("int4"), BlockSize = 60, ComputeDtype = ScalarType.Int32, Threshold = -1 };
        var e = Assert.Throws<QuantizationConfigException>(() => new ModelQuantizer(config));
        Assert.Equal("QuantizationConfig: quant_type must be nf4 or fp4, got 'int4'; blocksize must be one of 32, 64, 128, 256, 512, 1024, 2048, 4096, got 60; "
            + "compute dtype must be float32, bfloat16 or float16, got Int32; llm_int8_threshold must be 0 or above, got -1. Correct the quantisation settings.", e.Message);
        Assert.Equal(["bits must be 4 or 8, got 5"], new QuantizationConfig { Bits = 5 }.Problems());
    }

    [Theory]
    [InlineData("""{"quant_method": "gptq", "load_in_4bit": true}""", "quant_method is 'gptq'; only bitsandbytes is known")]
    [InlineData("""{"load_in_4bit": true, "load_in_8bit": true}""", "exactly one of load_in_4bit and load_in_8bit must be true")]
    [InlineData("""{"load_in_8bit": true, "llm_int8_has_fp16_weight": true}""", "llm_int8_has_fp16_weight keeps fp16 weights beside the int8 ones, which is not supported")]
    [InlineData("""{"load_in_4bit": true, "bnb_4bit_compute_dtype": "float8"}""", "bnb_4bit_compute_dtype 'float8' is not known")]
    [InlineData("""{"load_in_4bit": true, "bnb_4bit_quant_type": "nf2"}""", "quant_type must be nf4 or fp4, got 'nf2'")]
    public void What_cannot_be_is_refused(string json, string problem)
    {
        using var document = JsonDocument.Parse(json);
        var e = Assert.Throws<QuantizationConfigException>(() => QuantizationConfigJson.Read(document.RootElement, "config.json"));
        Assert.Equal($"config.json: {problem}. Correct the quantisation settings.", e.Message);
    }

    public static IEnumerable<TheoryDataRow<string>> Checkpoints() => QuantGolden.Rows("checkpoint");

    [Theory, MemberData(nameof(Checkpoints)), Trait(Goldens.Trait, QuantGolden.Area), Trait("Fault", "files-1")]
    public void Checkpoint_settings_are_read_and_written_as_transformers_writes_them(string folder)
    {
        var golden = new GoldenCase(folder);
        using var document = JsonDocument.Parse(File.ReadAllBytes(golden.PathOf("quantized/config.json")));
        var stored = document.RootElement.GetProperty("quantization_config");
        var config = QuantizationConfigJson.Read(stored, golden.Name);
        // Without a list transformers writes null; reading turns that into its default.
        if (stored.GetProperty("llm_int8_skip_modules").ValueKind == JsonValueKind.Null) config = config with { SkipModules = null };
        // Letter for letter: transformers types its fields, and refuses a threshold of "6" where it wants "6.0".
        Assert.Equal(PythonJson.Write(JsonNode.Parse(stored.GetRawText())), PythonJson.Write(QuantizationConfigJson.Write(config)));
    }
}
