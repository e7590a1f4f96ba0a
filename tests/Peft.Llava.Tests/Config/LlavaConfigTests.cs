using System.Text.Json.Nodes;
using Peft.Testing;
using TorchSharp;
using Xunit;

namespace Peft.Llava.Tests;

public sealed class LlavaConfigTests
{
    [Fact]
    public void A_change_goes_through_the_document_and_keeps_unknown_fields()
    {
        var config = LlavaConfig.Parse(new JsonObject { ["model_type"] = "llava_llama", ["mm_vision_tower"] = "t", ["mine"] = new JsonArray(1, 2) });
        var changed = config.With("tokenizer_padding_side", "left");
        Assert.Equal((PaddingSide.Right, PaddingSide.Left), (config.PaddingSide, changed.PaddingSide));
        Assert.Equal("[1,2]", changed.ToJson()["mine"]!.ToJsonString());
        Assert.False(config.ToJson().ContainsKey("tokenizer_padding_side"));
    }

    [Fact]
    public void Absent_fields_have_transformers_defaults()
    {
        var config = LlavaConfig.Parse(new JsonObject { ["model_type"] = "llava", ["text_config"] = new JsonObject(), ["vision_config"] = new JsonObject() });
        Assert.Equal((4096, 11008, 32, 32, 32, 32000), (config.Language.HiddenSize, config.Language.IntermediateSize, config.Language.LayerCount,
            config.Language.HeadCount, config.Language.KeyValueHeadCount, config.ImageTokenId!.Value));
        Assert.Equal((768, 12, 224, 32, -2), (config.Vision!.HiddenSize, config.Vision.LayerCount, config.Vision.ImageSize, config.Vision.PatchSize, config.FeatureLayer.Value));
    }

    [Fact]
    public void Pinpoints_are_width_first_whatever_the_files_order_is()
    {
        var next = LlavaConfig.Parse(new JsonObject { ["model_type"] = "llava_next", ["image_grid_pinpoints"] = new JsonArray(new JsonArray(336, 672)) });
        var original = LlavaConfig.Parse(new JsonObject { ["model_type"] = "llava_llama", ["mm_vision_tower"] = "t", ["image_grid_pinpoints"] = "[(336, 672)]" });
        Assert.Equal(new ImageSize(672, 336), Assert.Single(next.GridPinpoints));
        Assert.Equal(new ImageSize(336, 672), Assert.Single(original.GridPinpoints));
    }

    [Fact, Trait("Fault", "llava-14")]
    public void A_sliding_window_that_would_be_left_is_refused()
    {
        static LlavaConfig Text(params (string Name, JsonNode? Value)[] fields)
        {
            var text = new JsonObject { ["model_type"] = "mistral", ["max_position_embeddings"] = 8192 };
            foreach (var (name, value) in fields) text[name] = value;
            return LlavaConfig.Parse(new JsonObject { ["model_type"] = "llava_next", ["text_config"] = text, ["vision_config"] = new JsonObject() });
        }
        const string problem = "text_config.sliding_window 4096 is not supported: each token here sees all before it. If no sequence is longer than that, write null, otherwise take another model.";
        Assert.Equal([problem], Assert.Throws<InvalidConfigurationException>(() => Text(("sliding_window", 4096))).Problems);
        Assert.Equal([problem], Assert.Throws<InvalidConfigurationException>(() => Text()).Problems);       // transformers' default for Mistral
        Text(("sliding_window", null));
        Text(("sliding_window", 8192));
        Text(("sliding_window", 4096), ("use_sliding_window", false));
        var e = Assert.Throws<InvalidConfigurationException>(() => LlavaConfig.Parse(new JsonObject { ["model_type"] = "llava_llama", ["mm_vision_tower"] = "t", ["sliding_window"] = 100 }));
        Assert.Contains("sliding_window 100 is not supported", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void All_problems_are_told_at_once()
    {
        var e = Assert.Throws<InvalidConfigurationException>(() => LlavaConfig.Parse(new JsonObject
        {
            ["model_type"] = "llava_llama", ["mm_vision_tower"] = "t", ["mm_projector_type"] = "resampler", ["mm_patch_merge_type"] = "round",
            ["mm_vision_select_feature"] = "cls", ["tokenizer_padding_side"] = "top", ["hidden_act"] = "gelu", ["num_key_value_heads"] = 5,
            ["hidden_size"] = "big", ["vocab_size"] = 0, ["rope_scaling"] = new JsonObject { ["type"] = "yarn", ["factor"] = 0.5 },
            ["image_grid_pinpoints"] = new JsonArray(3), ["attention_bias"] = 1, ["eos_token_id"] = new JsonArray("x"), ["torch_dtype"] = 4,
            ["rope_theta"] = -1,
        }, "x/config.json"));
        Assert.Equal(
            [
                "attention_bias should be true or false, is 1.",
                "eos_token_id should be whole numbers, is [\"x\"].",
                "hidden_act 'gelu' is not supported; silu is.",
                "hidden_size should be a whole number, is \"big\".",
                "image_grid_pinpoints should be a list of pairs of positive whole numbers, is [3].",
                "mm_patch_merge_type 'round' is not known; flat, spatial and spatial_unpad are.",
                "mm_projector_type 'resampler' is not known; linear, mlpNx_gelu (mlp2x_gelu, …) and identity are.",
                "mm_vision_select_feature 'cls' is not known; patch and cls_patch are.",
                "num_attention_heads 32 is not a multiple of num_key_value_heads 5.",
                "rope_scaling.factor must be a number of at least 1.",
                "rope_scaling.rope_type 'yarn' is not supported; default, linear and dynamic are.",
                "rope_theta must be positive, is -1.",
                "tokenizer_padding_side 'top' is not known; left and right are.",
                "torch_dtype should be a text, is 4.",
                "vocab_size must be positive, is 0.",
            ], e.Problems.Order(StringComparer.Ordinal));
        Assert.StartsWith("x/config.json: 15 value(s) cannot be used.\n  ", e.Message, StringComparison.Ordinal);
        Assert.EndsWith("\nCorrect the file, or pass corrected values with LlavaLoadOptions.Config.", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Problems_of_the_llava_hf_layout_are_told_with_their_place()
    {
        var e = Assert.Throws<InvalidConfigurationException>(() => LlavaConfig.Parse(new JsonObject
        {
            ["model_type"] = "llava", ["vision_feature_select_strategy"] = "cls", ["projector_hidden_act"] = "relu", ["text_config"] = new JsonObject { ["head_dim"] = 7 },
            ["vision_config"] = new JsonObject { ["hidden_act"] = "gelu", ["hidden_size"] = 10, ["num_attention_heads"] = 3, ["image_size"] = 4, ["patch_size"] = 8 },
            ["rope_scaling"] = 3,
        }));
        Assert.Equal(
            [
                "projector_hidden_act 'relu' is not supported; gelu is.",
                "text_config.head_dim 7 must be even, for the rotary embedding.",
                "vision_config.hidden_act 'gelu' is not supported for the vision tower; quick_gelu is.",
                "vision_config.hidden_size 10 is not a multiple of num_attention_heads 3.",
                "vision_config.image_size 4 is smaller than patch_size 8.",
                "vision_feature_select_strategy 'cls' is not known; default and full are.",
            ], e.Problems.Order(StringComparer.Ordinal));
    }

    [Theory]
    [InlineData("{\"model_type\": \"qwen2\"}", "model_type 'qwen2' is not supported; llava_llama, llava, llava_next and llama are.")]
    [InlineData("{}", "model_type is missing; llava_llama, llava, llava_next and llama are.")]
    [InlineData("[]", "the file holds no JSON object.")]
    [InlineData("{\"model_type\": \"llava_llama\", \"text\"", "the file is no JSON: ")]
    [InlineData("{\"model_type\": \"llava\", \"text_config\": 3}", "text_config should be an object, is 3.")]
    public void A_file_of_something_else_is_refused(string text, string problem)
    {
        using var folder = new TemporaryFolder();
        File.WriteAllText(folder.File("config.json"), text);
        var e = Assert.Throws<InvalidConfigurationException>(() => LlavaConfig.Load(folder.Path));
        Assert.Equal(folder.File("config.json"), e.SourceFile);
        Assert.StartsWith(problem, Assert.Single(e.Problems), StringComparison.Ordinal);
    }

    [Fact]
    public void A_missing_file_is_refused()
    {
        using var folder = new TemporaryFolder();
        var e = Assert.Throws<InvalidConfigurationException>(() => LlavaConfig.Load(folder.Path));
        Assert.Equal("the file does not exist; a checkpoint folder has a config.json.", Assert.Single(e.Problems));
    }

    [Fact]
    public void A_feature_layer_beyond_the_tower_names_the_range()
    {
        Assert.Equal((4, 3, 0, 2), (new FeatureLayer(-1).Resolve(4), new FeatureLayer(-2).Resolve(4), new FeatureLayer(-5).Resolve(4), new FeatureLayer(2).Resolve(4)));
        var e = Assert.Throws<InvalidConfigurationException>(() => new FeatureLayer(5).Resolve(4));
        Assert.Equal("layer 5 does not exist: the vision tower has 4 layers, so -5 to 4 do.", Assert.Single(e.Problems));
    }

    [Fact]
    public void The_features_of_a_tile_need_the_towers_sizes()
    {
        var config = LlavaConfig.Parse(new JsonObject { ["model_type"] = "llava_llama", ["mm_vision_tower"] = "t" });
        var e = Assert.Throws<InvalidOperationException>(() => config.FeaturesPerTile);
        Assert.Equal("The vision tower's configuration has not been read.", e.Message);
        Assert.Equal(torch.ScalarType.BFloat16, config.With("torch_dtype", "bfloat16").StoredDtype);
    }
}
