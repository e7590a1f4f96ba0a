using System.Text.Json.Nodes;
using Peft.Core;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Training;

/// <summary>What the recipe makes of a base: its fingerprint, the projector's dtype, the tokenizer's padding.</summary>
[Collection(ProcessWideState.Name)]
public sealed class RecipeBaseTests : IDisposable
{
    private static readonly string Common = Path.Combine(Repository.Root, "tests", "goldens", "training", "common");
    private readonly TemporaryFolder _folder = new();
    private readonly ScriptFolders _scripts;

    public RecipeBaseTests() => _scripts = new ScriptFolders(_folder);

    public void Dispose() => _folder.Dispose();

    private LlavaArguments Parse(string flags, string model = "base-llava") => LlavaCommandLine.Parse(
    [
        "--model_name_or_path", Path.IsPathRooted(model) ? model : Path.Combine(Common, model), "--data_path", Path.Combine(Common, "data", "conv.json"), "--image_folder", Path.Combine(Common, "data", "images"),
        "--vision_tower", Path.Combine(Common, "clip-tower"), "--mm_projector_type", "mlp2x_gelu", "--mm_vision_select_layer", "-2", "--output_dir", _scripts.Output, "--max_steps", "2",
        "--per_device_train_batch_size", "1", "--save_strategy", "steps", "--save_steps", "1", "--lora_r", "6", "--lora_alpha", "20",
        .. flags.Split(' ', StringSplitOptions.RemoveEmptyEntries),
    ]);

    [Fact, Trait("Fault", "llava-17")]
    public void A_run_on_LLaVAs_main_path_says_what_base_it_was_trained_on()
    {
        var arguments = Parse("--version v1 --lora_enable True --mm_use_im_patch_token False");
        using (var prepared = LlavaRecipe.PrepareModel(arguments))
        using (var trainer = prepared.TrainerFor(LlavaRecipe.PrepareData(arguments, prepared.Model), arguments))
        {
            trainer.Train();
            trainer.SaveModel();
            // A LLaVA with its own tower: what Load of the same folder says, whatever the dtype.
            using var loaded = LlavaModel.Load(arguments.Model.ModelPath, new LlavaLoadOptions { VisionTower = arguments.Model.VisionTower, Dtype = ScalarType.BFloat16 });
            Assert.Equal(loaded.BaseFingerprint, prepared.Model.BaseFingerprint);
            Assert.Equal(loaded.BaseFingerprint, AdapterLineage.Read(_scripts.Output)!.BaseFingerprint);
        }
        using var other = LlavaModel.Load(Path.Combine(Common, "base-llava-bias"), new LlavaLoadOptions { VisionTower = arguments.Model.VisionTower });
        Assert.StartsWith($"{_scripts.Output}", Assert.Throws<WrongBaseException>(() => TrainedFolder.Load(other, _scripts.Output)).Message, StringComparison.Ordinal);
    }

    [Fact, Trait("Fault", "llava-17")]
    public void A_projector_or_token_rows_from_elsewhere_are_no_part_of_the_base()
    {
        string Of(string flags, string model = "base-llama")
        {
            using var prepared = LlavaRecipe.PrepareModel(Parse("--version v1 --lora_enable True " + flags, model));
            return prepared.Model.BaseFingerprint!;
        }
        string plain = Of("--mm_use_im_patch_token False");
        Assert.Equal(plain, Of($"--mm_use_im_patch_token False --pretrain_mm_mlp_adapter {_folder.File("mlp.bin")}"));
        string rows = _folder.File("rows.bin");
        using (var scope = NewDisposeScope())
        {
            using var projector = TensorFiles.Open(_folder.File("mlp.bin"));
            var tensors = projector.Entries.Keys.ToDictionary(key => key, projector.Load);
            tensors["model.embed_tokens.weight"] = randn(2, tensors["model.mm_projector.2.bias"].shape[0]);
            PickleWriter.Write(rows, tensors);
        }
        Assert.Equal(plain, Of($"--mm_use_im_patch_token False --mm_use_im_start_end True --pretrain_mm_mlp_adapter {rows} --bf16 True --bits 4"));
        Assert.NotEqual(plain, Of("--mm_use_im_patch_token False", "base-llava"));
    }

    [Fact, Trait("Fault", "llava-17"), Trait("Fault", "llava-8")]
    public void A_checkpoint_from_before_the_fingerprint_is_still_read()
    {
        var arguments = Parse("--version v1 --lora_enable True --mm_use_im_patch_token False");
        using var prepared = LlavaRecipe.PrepareModel(arguments);
        var data = LlavaRecipe.PrepareData(arguments, prepared.Model);
        using (var trainer = prepared.TrainerFor(data, arguments.Training)) trainer.Train();
        string checkpoint = Path.Combine(_scripts.Output, "checkpoint-1"), path = Path.Combine(checkpoint, "training_state.json");
        var state = JsonNode.Parse(File.ReadAllText(path))!.AsObject();
        string[] parts = ((string)state["Base"]!).Split(' ');
        Assert.Equal(2, parts.Length);
        void Write(string present)
        {
            state["Base"] = present;
            File.WriteAllText(path, state.ToJsonString());
        }
        Write(parts[0]);
        using (var strict = prepared.TrainerFor(data, arguments.Training))
            Assert.Equal(["the base model is another one"], Assert.Throws<StateMismatchException>(() => strict.ResumeFrom(checkpoint)).Problems);
        state["Version"] = 2;
        state.Remove("Run");
        Write(parts[0][..^1]);
        using (var other = prepared.TrainerFor(data, arguments.Training))
            Assert.Equal(["the base model is another one"], Assert.Throws<StateMismatchException>(() => other.ResumeFrom(checkpoint)).Problems);
        Write(parts[0]);
        using var resumed = prepared.TrainerFor(data, arguments.Training);
        resumed.ResumeFrom(checkpoint);
        Assert.Equal(1, resumed.StepsDone);
    }

    [Theory, Trait("Fault", "llava-19")]
    [InlineData("--bits 4 --bf16 True", true, ScalarType.BFloat16)]
    [InlineData("--bits 8 --bf16 True", false, ScalarType.BFloat16)]
    [InlineData("--bits 4 --fp16 True", true, ScalarType.Float32)]       // what learns beside a float16 base is float32
    [InlineData("--bits 4", true, ScalarType.Float32)]
    [InlineData("--bits 16 --bf16 True", true, ScalarType.Float32)]      // LLaVA makes it in float32 and leaves it so
    [InlineData("--bits 16 --bf16 True", false, ScalarType.Float32)]
    public void A_new_projector_has_the_runs_dtype_on_a_quantised_base(string flags, bool fromFile, ScalarType dtype)
    {
        using var prepared = LlavaRecipe.PrepareModel(Parse($"--version v1 --lora_enable True {flags}{(fromFile ? $" --pretrain_mm_mlp_adapter {_folder.File("mlp.bin")}" : "")}", "base-llama"));
        Assert.All(prepared.Model.Parameters(ModelPart.Projector), p => Assert.Equal(dtype, p.Parameter.dtype));
    }

    [Fact, Trait("Fault", "llava-12")]
    public void Without_a_version_a_tokenizer_that_has_a_padding_token_keeps_it_and_the_default_conversation()
    {
        string folder = Copy("padded");
        foreach (string file in new[] { "tokenizer_config.json", "special_tokens_map.json" }) Edit(Path.Combine(folder, file), json => json["pad_token"] = "</s>");
        var arguments = Parse("--lora_enable True --mm_use_im_patch_token False", folder);
        Assert.Equal("v0", arguments.Model.Version);
        using var prepared = LlavaRecipe.PrepareModel(arguments);
        var data = LlavaRecipe.PrepareData(arguments, prepared.Model);
        Assert.Equal(2, data.Tokenizer.PadId);
        Assert.Equal("vicuna_v1", data.Dataset.Encoder.Processor.Template.Name);
        Assert.Equal(0, LlavaRecipe.PrepareData(Parse("--version v1 --lora_enable True --mm_use_im_patch_token False", folder), prepared.Model).Tokenizer.PadId);
    }

    [Fact, Trait("Fault", "llava-12")]
    public void Without_a_version_a_tokenizer_without_a_padding_token_is_refused()
    {
        string folder = Copy("bare");
        foreach (string file in new[] { "tokenizer_config.json", "special_tokens_map.json" }) Edit(Path.Combine(folder, file), json => json.Remove("pad_token"));
        var arguments = Parse("--lora_enable True --mm_use_im_patch_token False", folder);
        using var prepared = LlavaRecipe.PrepareModel(arguments);
        Assert.Contains("--version v0, the default, adds a [PAD] row to a vocabulary without a padding token, and the base's tokenizer has none; give the template of your base, such as "
            + "--version v1 or --version plain", Assert.Throws<TrainingOptionsException>(() => LlavaRecipe.PrepareData(arguments, prepared.Model)).Message, StringComparison.Ordinal);
    }

    private string Copy(string name)
    {
        string folder = Directory.CreateDirectory(_folder.File(name)).FullName;
        foreach (string file in Directory.GetFiles(Path.Combine(Common, "base-llava"))) File.Copy(file, Path.Combine(folder, Path.GetFileName(file)));
        return folder;
    }

    private static void Edit(string path, Action<JsonObject> change)
    {
        var json = JsonNode.Parse(File.ReadAllText(path))!.AsObject();
        change(json);
        File.WriteAllText(path, json.ToJsonString());
    }
}
