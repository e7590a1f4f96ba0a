using System.Text.Json.Nodes;
using Peft.Core;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Training;

/// <summary>What of the vision side comes from the base, from a stage-1 file and from the flags.</summary>
public sealed class VisionPlanTests : IDisposable
{
    private const string Lora = "--lora_enable True";
    private static readonly string OnTower = $"--vision_tower {RecipeFolder.Tower} --image_aspect_ratio pad";
    private readonly RecipeFolder _run = new();

    public void Dispose() => _run.Dispose();

    [Theory, Trait("Fault", "llava-1"), Trait("Fault", "llava-10")]
    [InlineData("", 0)]
    [InlineData("--mm_projector_type mlp3x_gelu", 1)]
    [InlineData("--mm_projector_type linear --mm_vision_select_layer -1 --mm_vision_select_feature cls_patch", 3)]
    [InlineData("--mm_projector_type mlp2x_gelu --mm_vision_select_layer -2", 0)]
    public void A_llava_keeps_its_projector_with_type_layer_and_feature(string flags, int warnings)
    {
        var arguments = _run.Arguments(RecipeFolder.Llava, $"{OnTower} {Lora} {flags}");
        using var prepared = LlavaRecipe.PrepareModel(arguments);
        Assert.Equal(warnings, prepared.Warnings.Count);
        if (flags.Contains("mlp3x", StringComparison.Ordinal))
            Assert.Equal("--mm_projector_type mlp3x_gelu is not followed: the base was trained with mlp2x_gelu and keeps it, in config.json too", prepared.Warnings[0]);
        var config = prepared.Model.Config;
        Assert.Equal((ProjectorType.Mlp2xGelu, -2, false), (config.Projector, config.FeatureLayer.Value, config.KeepClassToken));
        using var reader = TensorFiles.Open(RecipeFolder.Llava);
        foreach (var (name, parameter) in prepared.Model.Parameters(ModelPart.Projector))
        {
            using var stored = reader.Load(name);
            TensorAssert.Equal(stored, parameter, name);
        }
        using var trainer = prepared.TrainerFor(LlavaRecipe.PrepareData(arguments, prepared.Model), arguments.Training);
        trainer.SaveModel();
        var saved = JsonNode.Parse(File.ReadAllText(Path.Combine(_run.Output, "config.json")))!;
        Assert.Equal(("mlp2x_gelu", -2, "patch"), ((string)saved["mm_projector_type"]!, (int)saved["mm_vision_select_layer"]!, (string)saved["mm_vision_select_feature"]!));
    }

    [Fact, Trait("Fault", "llava-1")]
    public void A_stage_1_file_with_another_projector_is_refused_and_the_type_named()
    {
        string flags = $"{OnTower} {Lora} --pretrain_mm_mlp_adapter {RecipeFolder.Stage1}";
        var e = Assert.Throws<CheckpointMismatchException>(() => LlavaRecipe.PrepareModel(_run.Arguments(RecipeFolder.Llama, flags)));
        Assert.Equal(RecipeFolder.Stage1, e.SourceFile);
        Assert.Equal(["model.mm_projector.weight", "model.mm_projector.bias"], e.MissingTensors);
        Assert.Equal(4, e.UnexpectedTensors.Count);
        Assert.EndsWith("The file's projector is mlp2x_gelu: on a language model give --mm_projector_type mlp2x_gelu, and check that the widths are those of the tower and the base.",
            e.Message, StringComparison.Ordinal);

        string empty = _run.File("none.bin");
        using (var scope = NewDisposeScope()) PickleWriter.Write(empty, new Dictionary<string, Tensor> { ["model.norm.weight"] = ones(3) });
        e = Assert.Throws<CheckpointMismatchException>(() => LlavaRecipe.PrepareModel(_run.Arguments(RecipeFolder.Llama, $"{OnTower} {Lora} --pretrain_mm_mlp_adapter {empty}")));
        Assert.Equal(["model.mm_projector.weight", "model.mm_projector.bias"], e.MissingTensors);
        Assert.EndsWith("check --pretrain_mm_mlp_adapter.", e.Message, StringComparison.Ordinal);

        // A file goes before a base's own projector, as in LLaVA.
        using var prepared = LlavaRecipe.PrepareModel(_run.Arguments(RecipeFolder.Llama, flags + " --mm_projector_type mlp2x_gelu"));
        using var reader = PickleReader.Open(RecipeFolder.Stage1);
        using var stored = reader.Load("model.mm_projector.2.bias");
        TensorAssert.Equal(stored, RecipeFolder.Parameter(prepared.Model, "model.mm_projector.2.bias"), "bias");
    }

    [Fact, Trait("Fault", "llava-2")]
    public void A_tower_that_was_trained_with_the_base_is_taken_from_it()
    {
        string trained = _run.Copy(RecipeFolder.Llava, "unfrozen", c => c["unfreeze_mm_vision_tower"] = true, tensors =>
        {
            using var tower = TensorFiles.Open(RecipeFolder.Tower);
            foreach (string key in tower.Entries.Keys.Where(k => k.StartsWith("vision_model.", StringComparison.Ordinal) && !k.EndsWith("position_ids", StringComparison.Ordinal)))
                tensors[ModelManifest.TowerPrefix + key] = tower.Load(key) + 0.25;
        });
        using var prepared = LlavaRecipe.PrepareModel(_run.Arguments(trained, $"{OnTower} {Lora}"));
        using var reader = TensorFiles.Open(trained);
        const string name = "model.vision_tower.vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight";
        using var stored = reader.Load(name);
        TensorAssert.Equal(stored, RecipeFolder.Parameter(prepared.Model, name), name);
        Assert.Equal($"--vision_tower {RecipeFolder.Tower} gives sizes and picture settings alone: the base holds a tower that was trained with it (unfreeze_mm_vision_tower), and its weights are taken",
            Assert.Single(prepared.Warnings));
    }

    [Theory, Trait("Fault", "llava-5")]
    [InlineData("--mm_projector_type linear", "--mm_projector_type linear is taken only where --vision_tower puts a tower on a base in the original layout, and the base has mlp2x_gelu; give --vision_tower too, or leave it out")]
    [InlineData("--mm_vision_select_layer -1", "--mm_vision_select_layer -1 is taken only")]
    [InlineData("--mm_vision_select_feature cls_patch", "--mm_vision_select_feature cls_patch is taken only")]
    [InlineData("--mm_patch_merge_type spatial", "--mm_patch_merge_type spatial is taken only")]
    [InlineData("--image_aspect_ratio square", "--image_aspect_ratio square is taken only")]
    [InlineData("--pretrain_mm_mlp_adapter x.bin", "--pretrain_mm_mlp_adapter is taken only where --vision_tower puts a tower on a base in the original layout; give --vision_tower too, or leave it out")]
    public void A_flag_that_says_nothing_without_a_tower_is_refused(string flag, string problem)
    {
        var e = Assert.Throws<TrainingOptionsException>(() => LlavaRecipe.PrepareModel(_run.Arguments(RecipeFolder.Llava, $"{Lora} {flag}")));
        Assert.Contains(problem, e.Message, StringComparison.Ordinal);
    }

    [Fact, Trait("Fault", "llava-5")]
    public void A_tower_for_a_llava_hf_base_is_refused()
    {
        string folder = Path.Combine(RecipeFolder.Common, "base-hf");
        var e = Assert.Throws<TrainingOptionsException>(() => LlavaRecipe.PrepareModel(_run.Arguments(folder, $"{Lora} --vision_tower {RecipeFolder.Tower}")));
        Assert.Contains("--vision_tower puts a tower on a base in the original layout, and a llava-hf checkpoint holds its own tower and its picture settings; leave it out", e.Message, StringComparison.Ordinal);
    }

    [Fact, Trait("Fault", "llava-5")]
    public void Pickles_for_a_whole_model_are_refused()
    {
        var e = Assert.Throws<CommandLineException>(() => _run.Arguments(RecipeFolder.Llava, "--save_safetensors False"));
        Assert.Equal("--save_safetensors False is for adapters, and a whole model is written as safetensors; leave it out or add --lora_enable True", Assert.Single(e.Problems));
        Assert.True(_run.Arguments(RecipeFolder.Llava, "--save_safetensors False --lora_enable True").Training.SaveAdapterAsPickle);
    }

    [Fact, Trait("Fault", "llava-6")]
    public void Any_resolution_takes_the_bases_grid_points()
    {
        string anyres = $"--vision_tower {RecipeFolder.Tower} --image_aspect_ratio anyres {Lora}";
        int side = LlavaConfigSide();
        string with = _run.Copy(RecipeFolder.Llava, "points", c => c["image_grid_pinpoints"] = new JsonArray(new JsonArray(side, 2 * side), new JsonArray(2 * side, side)));
        var arguments = _run.Arguments(with, anyres);
        using var prepared = LlavaRecipe.PrepareModel(arguments);
        var data = LlavaRecipe.PrepareData(arguments, prepared.Model);
        var images = Assert.IsType<ClipImageProcessor>(data.Dataset.Encoder.Processor.Images);
        Assert.Equal(AspectPolicy.AnyResolution, images.Aspect);
        Assert.Equal(3, images.TileCount(new ImageSize(2 * side, side)));
        var e = Assert.Throws<TrainingOptionsException>(() => LlavaRecipe.PrepareModel(_run.Arguments(RecipeFolder.Llava, anyres)));
        Assert.Contains("--image_aspect_ratio anyres brings pictures to one of the sizes in image_grid_pinpoints, and the base's config.json has none", e.Message, StringComparison.Ordinal);
    }

    [Fact, Trait("Fault", "llava-7")]
    public void A_language_model_gets_an_image_newline_that_stage_1_keeps_and_stage_2_trains()
    {
        string flags = $"{OnTower} --mm_projector_type mlp2x_gelu --mm_patch_merge_type spatial_unpad";
        var stage1 = _run.Arguments(RecipeFolder.Llama, flags + " --tune_mm_mlp_adapter True", _run.File("stage1"));
        using var drawn = NewDisposeScope();
        Tensor newline;
        using (var prepared = LlavaRecipe.PrepareModel(stage1))
        {
            newline = RecipeFolder.Parameter(prepared.Model, "model.image_newline").detach().clone();
            Assert.InRange(newline.std().item<float>() * Math.Sqrt(newline.numel()), 0.7, 1.4);
            using var trainer = prepared.TrainerFor(LlavaRecipe.PrepareData(stage1, prepared.Model), stage1.Training);
            Assert.DoesNotContain(trainer.Groups.SelectMany(g => g.Parameters), p => p.Name.Contains("image_newline", StringComparison.Ordinal));
            trainer.Train(TestContext.Current.CancellationToken);
            trainer.SaveModel();
        }
        string file = Path.Combine(_run.File("stage1"), "mm_projector.bin");
        var stage2 = _run.Arguments(RecipeFolder.Llama, $"{flags} {Lora} --seed 3 --pretrain_mm_mlp_adapter {file}");
        using var second = LlavaRecipe.PrepareModel(stage2);
        TensorAssert.Equal(newline, RecipeFolder.Parameter(second.Model, "model.image_newline"), "image_newline");
        using var trains = second.TrainerFor(LlavaRecipe.PrepareData(stage2, second.Model), stage2.Training);
        Assert.Contains(trains.Groups.SelectMany(g => g.Parameters), p => p.Name.EndsWith("image_newline", StringComparison.Ordinal));
    }

    [Theory, Trait("Fault", "llava-7")]
    [InlineData("--lora_enable True", false)]
    [InlineData("--lora_enable False", true)]
    public void A_newline_that_the_base_was_trained_with_learns_with_the_language_model_alone(string flags, bool learns)
    {
        string next = _run.Copy(RecipeFolder.Llava, "next", c => c["mm_patch_merge_type"] = "spatial_unpad", t => t["model.image_newline"] = ones(64) * 0.5);
        var arguments = _run.Arguments(next, $"{OnTower} {flags}");
        using var prepared = LlavaRecipe.PrepareModel(arguments);
        using var trainer = prepared.TrainerFor(LlavaRecipe.PrepareData(arguments, prepared.Model), arguments.Training);
        Assert.Equal(learns, RecipeFolder.Parameter(prepared.Model, "model.image_newline").requires_grad);
        using var asked = prepared.TrainerFor(LlavaRecipe.PrepareData(arguments, prepared.Model), arguments.Training with { Trainable = arguments.Training.Trainable with { ImageNewline = !learns } });
        Assert.Equal(!learns, RecipeFolder.Parameter(prepared.Model, "model.image_newline").requires_grad);
    }

    [Fact, Trait("Fault", "llava-7")]
    public void A_llava_without_a_newline_cannot_be_trained_with_one()
    {
        var e = Assert.Throws<TrainingOptionsException>(() => LlavaRecipe.PrepareModel(_run.Arguments(RecipeFolder.Llava, $"{OnTower} {Lora} --mm_patch_merge_type spatial_unpad")));
        Assert.Contains("--mm_patch_merge_type spatial_unpad ends each row of a picture with image_newline, and the base was trained without; give --mm_patch_merge_type flat or spatial, or start from "
            + "the language model", e.Message, StringComparison.Ordinal);
    }

    [Theory, Trait("Fault", "llava-11")]
    [InlineData(2)]
    [InlineData(642)]
    public void Trained_rows_of_start_and_end_ids_are_taken(int rows)
    {
        using var scope = NewDisposeScope();
        var trained = arange(rows * 56, dtype: ScalarType.Float32).reshape(rows, 56) / 1000;
        string file = WithRows(trained);
        string flags = $"{OnTower} {Lora} --mm_projector_type mlp2x_gelu --pretrain_mm_mlp_adapter {file}";
        using var prepared = LlavaRecipe.PrepareModel(_run.Arguments(RecipeFolder.Llama, flags + " --mm_use_im_start_end True"));
        var table = RecipeFolder.Parameter(prepared.Model, "model.embed_tokens.weight");
        Assert.Equal(642, table.shape[0]);
        TensorAssert.Equal(trained.narrow(0, rows - 2, 2), table.narrow(0, 640, 2), "rows");
        using var without = LlavaRecipe.PrepareModel(_run.Arguments(RecipeFolder.Llama, flags));
        Assert.Equal($"the rows of start and end ids in {file} are not taken: --mm_use_im_start_end is False", Assert.Single(without.Warnings));
    }

    [Fact, Trait("Fault", "llava-11")]
    public void Rows_that_are_missing_or_of_another_width_are_refused()
    {
        using var scope = NewDisposeScope();
        string flags = $"{OnTower} {Lora} --mm_projector_type mlp2x_gelu --mm_use_im_start_end True --pretrain_mm_mlp_adapter ";
        var e = Assert.Throws<CheckpointMismatchException>(() => LlavaRecipe.PrepareModel(_run.Arguments(RecipeFolder.Llama, flags + RecipeFolder.Stage1)));
        Assert.Equal(["model.embed_tokens.weight"], e.MissingTensors);
        string file = WithRows(ones(5, 56));
        e = Assert.Throws<CheckpointMismatchException>(() => LlavaRecipe.PrepareModel(_run.Arguments(RecipeFolder.Llama, flags + file)));
        Assert.Equal(["model.embed_tokens.weight: the file has (5, 56), the model wants (642, 56), or its last 2 rows alone"], e.ShapeFaults);
        Assert.EndsWith("Give the file of the first stage of this base, or --mm_use_im_start_end False.", e.Message, StringComparison.Ordinal);
    }

    [Fact, Trait("Fault", "llava-11")]
    public void Start_and_end_ids_follow_the_models_configuration_where_nothing_is_said()
    {
        string folder = _run.Copy(RecipeFolder.Llava, "ids", c => c["mm_use_im_start_end"] = true);
        var processor = LlavaProcessor.FromFolder(folder, new LlavaProcessorOptions { VisionFolder = RecipeFolder.Tower });
        processor = processor.WithTokenizer(processor.Tokenizer.WithAddedTokens(["<im_start>", "<im_end>"]));
        var sample = new LlavaSampleBuilder("s").User("What is it?", "x.png").Assistant("A cat.").Build();
        int start = processor.Tokenizer.IdOf("<im_start>")!.Value;
        Assert.Contains(start, new SampleEncoder(processor).EncodeText(sample).Ids);
        Assert.DoesNotContain(start, new SampleEncoder(processor, null, new DataOptions { UseImageStartEnd = false }).EncodeText(sample).Ids);
        Assert.DoesNotContain(start, new SampleEncoder(new LlavaProcessor(processor.Tokenizer, processor.Images)).EncodeText(sample).Ids);
    }

    [Fact, Trait("Fault", "llava-4")]
    public void The_device_is_chosen_in_one_place()
    {
        var arguments = _run.Arguments(RecipeFolder.Llava, $"{OnTower} {Lora}");
        var free = arguments with { Training = arguments.Training with { UseCpu = false } };
        Assert.Equal(DeviceType.CUDA, LlavaRecipe.DefaultDevice(free, cudaAvailable: true));
        Assert.Equal(DeviceType.CPU, LlavaRecipe.DefaultDevice(free, cudaAvailable: false));
        Assert.Equal(DeviceType.CPU, LlavaRecipe.DefaultDevice(arguments, cudaAvailable: true));
        var asked = new List<LlavaArguments>();
        foreach (string flags in new[] { $"{OnTower} {Lora}", Lora })
        {
            using var prepared = LlavaRecipe.PrepareModel(_run.Arguments(_run.Copy(RecipeFolder.Llava, $"device{asked.Count}", c => c["mm_vision_tower"] = RecipeFolder.Tower), flags), a =>
            {
                asked.Add(a);
                return CPU;
            });
            Assert.Equal(DeviceType.CPU, prepared.Model.Device.type);
        }
        Assert.Equal(2, asked.Count);
        Assert.All(asked, a => Assert.True(a.Training.UseCpu));
    }

    private static int LlavaConfigSide()
        => (int)JsonNode.Parse(File.ReadAllText(Path.Combine(RecipeFolder.Tower, "config.json")))!["image_size"]!;

    private string WithRows(Tensor rows)
    {
        string file = _run.File("rows.bin");
        using var reader = PickleReader.Open(RecipeFolder.Stage1);
        var tensors = reader.Entries.Keys.ToDictionary(k => k, k => reader.Load(k));
        tensors["model.embed_tokens.weight"] = rows;
        PickleWriter.Write(file, tensors);
        return file;
    }
}
