using Peft.Core;
using Peft.Llava.Tests.Training;
using Peft.Quantization;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests;

/// <summary>The one loader, on what trainings of LLaVA's flags leave.</summary>
public sealed class PretrainedLlavaTests : IDisposable
{
    private static readonly string OnTower = $"--vision_tower {RecipeFolder.Tower} --image_aspect_ratio pad --mm_projector_type mlp2x_gelu";
    private readonly RecipeFolder _run = new();

    public void Dispose() => _run.Dispose();

    private static LlavaTrainingData Data(PretrainedLlava loaded)
    {
        string data = Path.Combine(RecipeFolder.Common, "data");
        return new LlavaTrainingData(LlavaDataset.FromJson(Path.Combine(data, "conv.json"), Path.Combine(data, "images"), loaded.Processor.WithTemplate(Templates.ByName("v1"))), loaded.Model.Config, 132);
    }

    [Theory, Trait("Fault", "llava-3")]
    [InlineData("base-llama", "--tune_mm_mlp_adapter True")]
    [InlineData("base-llama", "--tune_mm_mlp_adapter True --mm_patch_merge_type spatial_unpad")]
    [InlineData("base-llama", "--lora_enable True")]
    [InlineData("base-llama", "--lora_enable True --mm_use_im_start_end True")]
    [InlineData("base-llama", "--lora_enable True --freeze_mm_mlp_adapter True --pretrain_mm_mlp_adapter {stage1}")]
    [InlineData("base-llava", "--lora_enable True")]
    [InlineData("base-llava", "--tune_mm_mlp_adapter True")]
    public void What_was_trained_on_a_base_loads_on_it(string name, string flags)
    {
        string folder = Path.Combine(RecipeFolder.Common, name);
        flags = flags.Replace("{stage1}", RecipeFolder.Stage1, StringComparison.Ordinal);
        using var scope = NewDisposeScope();
        var trained = _run.Train(_run.Arguments(folder, $"{OnTower} {flags}"));
        using var loaded = PretrainedLlava.Load(_run.Output, folder);
        Assert.Equal(flags.Contains("lora_enable", StringComparison.Ordinal), loaded.Peft is not null);
        var logits = RecipeFolder.Logits(loaded.Model, Data(loaded));
        TensorAssert.Close(trained, logits, 1e-4, 1e-4, "logits");
        Assert.Equal(132, loaded.ContextLength);
    }

    [Theory, Trait("Fault", "llava-3")]
    [InlineData(4)]
    [InlineData(8)]
    public void Each_loads_quantised(int bits)
    {
        var quantization = bits == 4 ? QuantizationConfig.Nf4(ScalarType.Float32) : QuantizationConfig.Int8();
        var options = new LlavaLoadOptions { Quantization = quantization, Dtype = ScalarType.Float32 };
        foreach (var (name, flags) in new[] { ("base-llama", "--tune_mm_mlp_adapter True"), ("base-llama", "--lora_enable True"), ("base-llava", "--lora_enable True") })
        {
            string folder = Path.Combine(RecipeFolder.Common, name), output = _run.File($"{name}{flags.Length}");
            _run.Train(_run.Arguments(folder, $"{OnTower} {flags}", output)).Dispose();
            using var loaded = PretrainedLlava.Load(output, folder, options);
            Assert.Contains(loaded.Model.modules(), m => bits == 4 ? m is FourBitLinear : m is Int8Linear);
            using var logits = RecipeFolder.Logits(loaded.Model, Data(loaded));
            Assert.True(logits.isfinite().all().item<bool>());
        }
    }

    [Fact, Trait("Fault", "llava-3")]
    public void Stage_1_files_with_the_two_trained_rows_alone_load()
    {
        using var scope = NewDisposeScope();
        _run.Train(_run.Arguments(RecipeFolder.Llama, $"{OnTower} --tune_mm_mlp_adapter True")).Dispose();
        string file = Path.Combine(_run.Output, "mm_projector.bin");
        Dictionary<string, Tensor> tensors;
        using (var reader = PickleReader.Open(file)) tensors = reader.Entries.Keys.ToDictionary(k => k, k => reader.Load(k));
        tensors["model.embed_tokens.weight"] = arange(2 * 56, dtype: ScalarType.Float32).reshape(2, 56);
        PickleWriter.Write(file, tensors);
        string config = Path.Combine(_run.Output, "config.json");
        File.WriteAllText(config, File.ReadAllText(config).Replace("\"vocab_size\": 640", "\"vocab_size\": 642", StringComparison.Ordinal));
        using var loaded = PretrainedLlava.Load(_run.Output, RecipeFolder.Llama);
        var table = RecipeFolder.Parameter(loaded.Model, "model.embed_tokens.weight");
        TensorAssert.Equal(tensors["model.embed_tokens.weight"], table.narrow(0, 640, 2), "rows");
    }

    [Theory, Trait("Fault", "llava-13")]
    [InlineData("base-llama")]
    [InlineData("base-llava")]
    public void A_whole_model_loads_by_its_folder_alone_after_it_was_moved(string name)
    {
        using var scope = NewDisposeScope();
        // The tower is beside the base only while the training runs.
        string tower = _run.Copy(RecipeFolder.Tower, "tower"), moved = _run.File("moved");
        var trained = _run.Train(_run.Arguments(Path.Combine(RecipeFolder.Common, name), OnTower.Replace(RecipeFolder.Tower, tower, StringComparison.Ordinal) + " --lora_enable False"));
        Directory.Move(_run.Output, moved);
        Directory.Delete(tower, recursive: true);
        using var loaded = PretrainedLlava.Load(moved);
        TensorAssert.Close(trained, RecipeFolder.Logits(loaded.Model, Data(loaded)), 1e-5, 1e-5, "logits");
        using var plain = LlavaModel.Load(moved);
        Assert.NotNull(LlavaProcessor.FromFolder(moved).Images);
        Assert.Equal("Load it without the base", Assert.Throws<CheckpointException>(() => PretrainedLlava.Load(moved, RecipeFolder.Llama)).Message.TrimEnd('.')[^24..]);
    }

    [Fact, Trait("Fault", "llava-13")]
    public void A_merged_model_loads_by_its_folder_alone_after_it_was_moved()
    {
        using var scope = NewDisposeScope();
        string tower = _run.Copy(RecipeFolder.Tower, "tower"), merged = _run.File("merged"), moved = _run.File("elsewhere");
        var trained = _run.Train(_run.Arguments(RecipeFolder.Llava, OnTower.Replace(RecipeFolder.Tower, tower, StringComparison.Ordinal) + " --lora_enable True"));
        using (var loaded = PretrainedLlava.Load(_run.Output, RecipeFolder.Llava))
        {
            loaded.Peft!.MergeAndUnload();
            loaded.Model.SavePretrained(merged);
        }
        Directory.Move(merged, moved);
        Directory.Delete(tower, recursive: true);
        using var whole = PretrainedLlava.Load(moved);
        TensorAssert.Close(trained, RecipeFolder.Logits(whole.Model, Data(whole)), 1e-4, 1e-4, "logits");
        // A run on it goes on with the tower that it holds.
        using var again = LlavaRecipe.PrepareModel(_run.Arguments(moved, $"--vision_tower {RecipeFolder.Tower} --image_aspect_ratio pad --lora_enable True"));
        Assert.Empty(again.Warnings);
    }

    [Fact, Trait("Fault", "llava-13")]
    public void A_model_made_in_code_loads_from_what_it_saves()
    {
        using var folder = new TemporaryFolder();
        using var tiny = TinyLlava.Create(5);
        tiny.Model.SavePretrained(folder.Path);
        tiny.Processor.Save(folder.Path);
        using var loaded = LlavaModel.Load(folder.Path);
        Assert.Equal(tiny.Model.Config.Vision, loaded.Config.Vision);
        using var batch = new LlavaTrainingData(tiny.Dataset(3), tiny.Model.Config).Batch([0, 1]);
        using var noGrad = no_grad();
        TensorAssert.Equal(tiny.Model.Forward(batch).Logits!, loaded.Forward(batch).Logits!, "logits");
    }

    [Fact, Trait("Fault", "llava-13")]
    public void A_relative_tower_is_looked_for_beside_the_checkpoint_and_in_the_working_folder()
    {
        string relative = Path.GetRelativePath(Directory.GetCurrentDirectory(), RecipeFolder.Tower);
        string folder = _run.Copy(RecipeFolder.Llava, "relative", c => c["mm_vision_tower"] = relative);
        using (LlavaModel.Load(folder)) Assert.NotNull(LlavaProcessor.FromFolder(folder).Images);
        string lost = _run.Copy(RecipeFolder.Llava, "lost", c => c["mm_vision_tower"] = "no/such");
        var e = Assert.Throws<VisionTowerNotFoundException>(() => LlavaModel.Load(lost));
        Assert.Equal([Path.Combine(lost, "no", "such"), Path.GetFullPath("no/such")], e.Tried);
    }

    [Fact, Trait("Fault", "llava-3")]
    public void Folders_that_do_not_make_a_model_are_refused()
    {
        _run.Train(_run.Arguments(RecipeFolder.Llama, $"{OnTower} --lora_enable True")).Dispose();
        var e = Assert.Throws<CheckpointException>(() => PretrainedLlava.Load(_run.Output));
        Assert.Contains("it holds an adapter and no model (its base was ", e.Message, StringComparison.Ordinal);
        Assert.EndsWith("Give the folder of the base too.", e.Message, StringComparison.Ordinal);
        string empty = Directory.CreateDirectory(_run.File("empty")).FullName;
        Assert.Contains("it holds no model, no adapter_config.json and no mm_projector.bin. Name the folder of a whole model, of a LoRA run or of stage 1.",
            Assert.Throws<CheckpointException>(() => PretrainedLlava.Load(empty)).Message, StringComparison.Ordinal);
        File.Delete(Path.Combine(_run.Output, NonLoraTrainables.FileName));
        var missing = Assert.Throws<CheckpointMismatchException>(() => PretrainedLlava.Load(_run.Output, RecipeFolder.Llama));
        Assert.Equal(4, missing.MissingTensors.Count);
        Assert.EndsWith($"What the base {RecipeFolder.Llama} lacks has to be in {_run.Output}, in mm_projector.bin or non_lora_trainables.bin, and its config.json has to describe the two together.",
            missing.Message, StringComparison.Ordinal);
    }

    [Fact, Trait("Fault", "llava-3")]
    public void Picture_settings_that_are_nowhere_are_named()
    {
        string tower = _run.Copy(RecipeFolder.Tower, "bare");
        string folder = _run.Copy(RecipeFolder.Llava, "base", c => c["mm_vision_tower"] = tower);
        File.Delete(Path.Combine(tower, "preprocessor_config.json"));
        var e = Assert.Throws<ImageProcessorConfigException>(() => PretrainedLlava.Load(folder));
        Assert.Contains("Copy the vision tower's preprocessor_config.json into the folder.", e.Message, StringComparison.Ordinal);
    }
}
