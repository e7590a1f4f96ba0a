using System.Text.Json.Nodes;
using Peft.Core;
using Peft.Quantization;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Checkpoints;

/// <summary>Whole models written as checkpoint folders.</summary>
public sealed class CheckpointWriterTests
{
    /// <summary>A llava-hf checkpoint in bf16.</summary>
    private static string BaseLlava => Path.Combine(Goldens.Roots[0], "bitsandbytes", "_base_llava");

    [Theory]
    [InlineData(HuggingFaceKeyStyle.Classic, "language_model.model.layers.0.mlp.up_proj.weight", "vision_tower.vision_model.encoder.layers.0.mlp.fc1.bias")]
    [InlineData(HuggingFaceKeyStyle.ModuleTree5, "model.language_model.layers.0.mlp.up_proj.weight", "model.vision_tower.encoder.layers.0.mlp.fc1.bias")]
    public void A_dense_model_in_shards_is_read_again_tensor_for_tensor(HuggingFaceKeyStyle style, string language, string tower)
    {
        using var scope = NewDisposeScope();
        using var folder = new TemporaryFolder();
        using var companions = new TemporaryFolder();
        File.WriteAllText(Path.Combine(companions.Path, "tokenizer_config.json"), "{\"model_max_length\": 77}");
        File.WriteAllText(Path.Combine(companions.Path, "training_args.bin"), "not a companion");
        using var model = LlavaModel.Load(BaseLlava);

        var files = model.SavePretrained(folder.Path, new SavePretrainedOptions { KeyStyle = style, MaxShardBytes = 60_000, CompanionFolder = companions.Path });

        Assert.Contains("model.safetensors.index.json", files);
        Assert.Equal("{\"model_max_length\": 77}", File.ReadAllText(Path.Combine(folder.Path, "tokenizer_config.json")));
        Assert.False(File.Exists(Path.Combine(folder.Path, "training_args.bin")));
        using (var reader = TensorFiles.Open(folder.Path))
        {
            Assert.Contains(language, reader.Entries.Keys);
            Assert.Contains(tower, reader.Entries.Keys);
        }
        using var again = LlavaModel.Load(folder.Path);
        Assert.Equal(ScalarType.BFloat16, again.Config.StoredDtype);
        var wanted = model.state_dict();
        var got = again.state_dict();
        Assert.Equal(wanted.Keys.Order(StringComparer.Ordinal), got.Keys.Order(StringComparer.Ordinal));
        foreach (var (name, tensor) in wanted) TensorAssert.Equal(tensor, got[name], name);
    }

    [Fact, Trait("Fault", "files-1")]
    public void Numbers_of_a_configuration_built_in_code_have_the_types_that_transformers_wants()
    {
        using var folder = new TemporaryFolder();
        using var tiny = TinyLlava.Create(5);
        var config = tiny.Model.Config.With("rope_theta", 7000.0).With("attention_dropout", 0.0).With("initializer_range", 3e-5);
        using var model = LlavaModel.CreateRandom(config, 5);
        model.SavePretrained(folder.Path);
        string text = File.ReadAllText(folder.File("config.json"));
        foreach (string line in new[] { "\"rope_theta\": 7000.0,", "\"attention_dropout\": 0.0,", "\"initializer_range\": 3e-05,", "\"rms_norm_eps\": 1e-05,", "\"hidden_size\": 32," })
            Assert.Contains(line, text);
    }

    [Fact, Trait("Fault", "files-3")]
    public void Without_a_companion_folder_the_files_come_from_where_the_model_was_loaded()
    {
        using var source = new TemporaryFolder();
        using var folder = new TemporaryFolder();
        using var bare = new TemporaryFolder();
        string hf5 = Path.Combine(Goldens.Roots[0], "export", "gqa-hf5", "expected");
        foreach (string file in Directory.GetFiles(hf5)) File.Copy(file, source.File(Path.GetFileName(file)));
        using var model = LlavaModel.Load(source.Path);
        model.SavePretrained(folder.Path);
        foreach (string name in new[] { "generation_config.json", "processor_config.json", "chat_template.jinja", "tokenizer.json", "tokenizer_config.json" })
            Assert.Equal(File.ReadAllBytes(source.File(name)), File.ReadAllBytes(folder.File(name)));

        // An empty text asks for none of them; what transformers needs to count a picture's tokens is written all the same, as transformers has it.
        model.SavePretrained(bare.Path, new SavePretrainedOptions { CompanionFolder = "" });
        Assert.Equal(["config.json", "model.safetensors", "processor_config.json"], Directory.GetFiles(bare.Path).Select(Path.GetFileName).Order(StringComparer.Ordinal));
        var recorded = JsonNode.Parse(File.ReadAllBytes(source.File("processor_config.json")))!.AsObject();
        recorded.Remove("image_processor");
        Assert.Equal(PythonJson.Write(recorded) + "\n", File.ReadAllText(bare.File("processor_config.json")));
    }

    [Fact]
    public void A_quantised_model_names_its_settings_and_the_parts_left_dense()
    {
        using var folder = new TemporaryFolder();
        using var model = LlavaModel.Load(BaseLlava);
        string kept = "model.layers.1.mlp.down_proj";
        new ModelQuantizer(QuantizationConfig.Nf4(ScalarType.BFloat16) with { SkipModules = ["mm_projector", "lm_head", "vision_tower", kept] }).Quantize(model);
        model.SavePretrained(folder.Path);

        var settings = JsonNode.Parse(File.ReadAllText(Path.Combine(folder.Path, "config.json")))!["quantization_config"]!;
        Assert.Equal(["lm_head", "model.language_model.layers.1.mlp.down_proj", "model.multi_modal_projector", "model.vision_tower"],
            settings["llm_int8_skip_modules"]!.AsArray().Select(n => (string)n!).Order(StringComparer.Ordinal));
        Assert.Equal(("nf4", true, "bfloat16"), ((string)settings["bnb_4bit_quant_type"]!, (bool)settings["bnb_4bit_use_double_quant"]!, (string)settings["bnb_4bit_compute_dtype"]!));
        using var again = LlavaModel.Load(folder.Path);
        Assert.IsType<DenseFrozenLinear>(ModuleTree.Find(again, kept));
        Assert.IsType<FourBitLinear>(ModuleTree.Find(again, "model.layers.1.mlp.up_proj"));
    }

    [Fact]
    public void Adapters_must_be_merged_or_taken_off_first()
    {
        using var folder = new TemporaryFolder();
        using var tiny = TinyLlava.Create(6);
        using var peft = tiny.Model.GetPeftModel(new LoraConfig { Rank = 2, Alpha = 3, TargetModules = TargetModules.Names(["q_proj"]) });
        var error = Assert.Throws<AdapterStateException>(() => tiny.Model.SavePretrained(folder.Path));
        Assert.Contains("cannot be saved as a checkpoint while it carries adapters (model.layers.0.self_attn.q_proj)", error.Message);
        Assert.Contains("MergeAndUnload", error.Message);
        Assert.Empty(Directory.GetFileSystemEntries(folder.Path));
    }

    [Fact]
    public void Layers_packed_in_two_ways_have_no_words_in_a_checkpoint()
    {
        using var folder = new TemporaryFolder();
        using var tiny = TinyLlava.Create(7);
        new ModelQuantizer(QuantizationConfig.Nf4() with { SkipModules = ["mm_projector", "lm_head", "vision_tower", "model.layers.0"] }).Quantize(tiny.Model);
        new ModelQuantizer(QuantizationConfig.Int8(5f)).Quantize(tiny.Model);
        var error = Assert.Throws<QuantizationConfigException>(() => tiny.Model.SavePretrained(folder.Path));
        Assert.Contains("layers are quantised in 2 ways (", error.Message);
        Assert.Contains("int8 threshold 5", error.Message);
        Assert.Empty(Directory.GetFileSystemEntries(folder.Path));
    }

    [Fact]
    public void A_cancelled_save_leaves_the_folder_as_it_was()
    {
        using var folder = new TemporaryFolder();
        using var tiny = TinyLlava.Create(8);
        using var cancelled = new CancellationTokenSource();
        cancelled.Cancel();
        Assert.ThrowsAny<OperationCanceledException>(() => tiny.Model.SavePretrained(folder.Path, cancellation: cancelled.Token));
        Assert.Empty(Directory.GetFileSystemEntries(folder.Path));
    }
}
