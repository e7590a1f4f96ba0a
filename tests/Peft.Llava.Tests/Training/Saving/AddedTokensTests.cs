using System.Text.Json.Nodes;
using Peft.Testing;
using Xunit;

namespace Peft.Llava.Tests.Training;

/// <summary>Tokens that a training adds to the base's tokenizer are in every folder that it writes.</summary>
public sealed class AddedTokensTests
{
    private const string Text = "a<im_start><im_patch><im_end> picture.</s>";
    private static readonly string[] Added = ["<im_patch>", "<im_start>", "<im_end>"];

    [Theory]
    [InlineData("--lora_enable True --lora_r 3 --lora_alpha 7")]
    [InlineData("--lora_enable False")]
    public void A_run_of_llavas_flags_leaves_its_tokenizer_in_checkpoints_and_results(string flags)
    {
        using var output = new TemporaryFolder();
        var arguments = Arguments(output.Path, flags);
        using var prepared = LlavaRecipe.PrepareModel(arguments);
        var data = LlavaRecipe.PrepareData(arguments, prepared.Model);
        int before = LlamaTokenizer.FromFolder(arguments.Model.ModelPath).Count;
        Assert.Equal(before + 3, prepared.Model.Config.Language.VocabularySize);
        using var trainer = prepared.TrainerFor(data, arguments.Training);
        trainer.Train();
        trainer.SaveModel();
        foreach (string folder in new[] { output.File("checkpoint-1"), output.Path })
        {
            var read = LlamaTokenizer.FromFolder(folder);
            Assert.Equal(before + 3, read.Count);
            Assert.Equal([before, before + 1, before + 2], Added.Select(t => read.IdOf(t)!.Value));
            Assert.Equal(data.Tokenizer.Encode(Text), read.Encode(Text));
            Assert.Equal((data.Tokenizer.PadId, 129), (read.PadId, read.ModelMaxLength));
            Assert.Equal($$"""
                {
                  "<im_end>": {{before + 2}},
                  "<im_patch>": {{before}},
                  "<im_start>": {{before + 1}}
                }

                """, File.ReadAllText(Path.Combine(folder, "added_tokens.json")));
            var special = JsonNode.Parse(File.ReadAllText(Path.Combine(folder, "special_tokens_map.json")))!;
            Assert.Equal(Added, special["additional_special_tokens"]!.AsArray().Select(t => (string)t!["content"]!));
            Assert.Equal("<unk>", (string)special["pad_token"]!);
            var config = JsonNode.Parse(File.ReadAllText(Path.Combine(folder, "tokenizer_config.json")))!;
            Assert.Equal("right", (string)config["padding_side"]!);
            Assert.Equal("<im_start>", (string)config["added_tokens_decoder"]![$"{before + 1}"]!["content"]!);
            Assert.True((bool)config["added_tokens_decoder"]![$"{before + 1}"]!["special"]!);
        }
    }

    [Fact]
    public void A_fully_trained_model_loads_with_a_row_for_each_token()
    {
        using var output = new TemporaryFolder();
        var arguments = Arguments(output.Path, "--lora_enable False");
        using (var prepared = LlavaRecipe.PrepareModel(arguments))
        {
            using var trainer = prepared.TrainerFor(LlavaRecipe.PrepareData(arguments, prepared.Model), arguments.Training);
            trainer.Train();
            trainer.SaveModel();
        }
        using var model = LlavaModel.Load(output.Path);
        Assert.Equal(LlavaProcessor.FromFolder(output.Path, new LlavaProcessorOptions { VisionFolder = arguments.Model.VisionTower }).Tokenizer.Count,
            model.named_parameters().Single(p => p.name == "model.embed_tokens.weight").parameter.shape[0]);
    }

    [Fact]
    public void A_run_that_goes_on_from_such_a_folder_with_the_same_flags_adds_nothing()
    {
        using var first = new TemporaryFolder();
        using var second = new TemporaryFolder();
        var arguments = Arguments(first.Path, "--lora_enable False");
        using (var prepared = LlavaRecipe.PrepareModel(arguments))
        {
            using var trainer = prepared.TrainerFor(LlavaRecipe.PrepareData(arguments, prepared.Model), arguments.Training);
            trainer.SaveModel();
        }
        var next = Arguments(second.Path, "--lora_enable True");
        next = next with { Model = next.Model with { ModelPath = first.Path } };
        using var again = LlavaRecipe.PrepareModel(next);
        var before = LlamaTokenizer.FromFolder(first.Path);
        var tokenizer = LlavaRecipe.PrepareData(next, again.Model).Tokenizer;
        Assert.Equal(before.Count, tokenizer.Count);
        Assert.Equal(before.Encode(Text), tokenizer.Encode(Text));
        Assert.Equal(before.Count, again.Model.Config.Language.VocabularySize);
        using var reader = Peft.Core.TensorFiles.Open(first.Path);
        using var rows = reader.Load("model.embed_tokens.weight");
        TensorAssert.Equal(rows, again.Model.named_parameters().Single(p => p.name.EndsWith("embed_tokens.weight", StringComparison.Ordinal)).parameter, "embedding");
    }

    [Fact]
    public void Tokens_without_rows_are_not_added()
    {
        using var output = new TemporaryFolder();
        var arguments = Arguments(output.Path, "--lora_enable True");
        string folder = CopyOf(arguments.Model.ModelPath, output, 3);
        // Without --vision_tower LLaVA adds nothing; <im_patch>, its default, stands in no text.
        var bare = arguments with { Model = arguments.Model with { VisionTower = null } };
        var e = Assert.Throws<TrainingOptionsException>(() => LlavaRecipe.PrepareModel(bare));
        Assert.Contains("--mm_use_im_start_end True writes <im_start> and <im_end> around pictures, which the base has no rows for; they are added where --vision_tower puts a tower on a base in the "
            + "original layout. Give --mm_use_im_start_end False", e.Message, StringComparison.Ordinal);
        using var tiny = TinyLlava.Create();
        string samples = Path.Combine(Repository.Root, "samples", "data");
        var patch = new LlavaArguments
        {
            Model = new LlavaModelArguments { ModelPath = Path.Combine(samples, "base"), Version = "v1" },
            Data = new LlavaDataArguments { DataPath = Path.Combine(samples, "card_train.json"), ImageFolder = samples },
            Training = new TrainingOptions { MaxLength = 99 },
        };
        Assert.True(patch.Model.UseImagePatchToken);
        Assert.Null(LlavaRecipe.PrepareData(patch, tiny.Model).Tokenizer.IdOf("<im_patch>"));

        int count = LlamaTokenizer.FromFolder(folder).Count;
        e = Assert.Throws<TrainingOptionsException>(() => LlavaRecipe.PrepareModel(arguments with { Model = arguments.Model with { ModelPath = folder } }));
        Assert.Contains($"<im_patch>, <im_start>, <im_end> would be added as id {count} and on, where the base's tokenizer ends, but its embedding ends at row {count + 3}; "
            + "give --mm_use_im_patch_token False and --mm_use_im_start_end False, or bring the base to the tokenizer's size (LlavaModel.ResizeTokenEmbeddings, SavePretrained)", e.Message, StringComparison.Ordinal);
    }

    /// <summary>The files of the recorded full fine-tuning, byte for byte, from the tokenizer that the samples were encoded with.</summary>
    [Theory, Trait(Goldens.Trait, "training")]
    [InlineData("tokenizer_config.json")]
    [InlineData("special_tokens_map.json")]
    [InlineData("tokenizer.model")]
    public void Without_added_tokens_the_files_are_llavas(string name)
    {
        using var output = new TemporaryFolder();
        var run = new GoldenRun(Path.Combine(Goldens.Roots[0], "training", "full"), output.Path);
        using var prepared = LlavaRecipe.PrepareModel(run.Arguments);
        using var trainer = prepared.TrainerFor(LlavaRecipe.PrepareData(run.Arguments, prepared.Model), run.Arguments.Training);
        trainer.SaveModel();
        Assert.Equal(File.ReadAllBytes(run.Case.PathOf(Path.Combine("output", name))), File.ReadAllBytes(output.File(name)));
        Assert.False(File.Exists(output.File("added_tokens.json")));
    }

    [Fact]
    public void A_tokenizer_of_ones_own_goes_into_a_stage_1_folder_and_a_whole_model()
    {
        using var output = new TemporaryFolder();
        using var tiny = TinyLlava.Create();
        var tokenizer = tiny.Tokenizer.WithAddedTokens(["<|im_end|>"], special: false).WithPadToken("[PAD]");
        tiny.Model.ResizeTokenEmbeddings(tokenizer.Count);
        var data = new LlavaDataset(TinyLlava.Samples(3), new SampleEncoder(tiny.Processor.WithTokenizer(tokenizer)));
        using var trainer = new LLaVATrainer(tiny.Model, new LlavaTrainingData(data, tiny.Model.Config, 256), new TrainingOptions
        {
            OutputDirectory = output.Path, Trainable = TrainableParts.ProjectorOnly(), SaveStrategy = SaveStrategy.None, MaxSteps = 1, MaxLength = 256,
        });
        trainer.SaveModel();
        tiny.Model.SavePretrained(output.File("whole"), new SavePretrainedOptions { Tokenizer = tokenizer, CompanionFolder = output.Path });
        foreach (string folder in new[] { output.Path, output.File("whole") })
        {
            var read = LlamaTokenizer.FromFolder(folder);
            Assert.Equal(tokenizer.AddedTokens, read.AddedTokens);
            Assert.Equal((tokenizer.Count - 1, tokenizer.Count), (read.PadId, read.Count));
            Assert.Equal(tokenizer.Encode("a picture<|im_end|>[PAD]"), read.Encode("a picture<|im_end|>[PAD]"));
        }
    }

    [Fact]
    public void The_tokenizer_of_a_mixture_is_its_sources()
    {
        using var tiny = TinyLlava.Create();
        var mixture = new DatasetMixture([new MixtureSource("a", tiny.Dataset(3)), new MixtureSource("b", tiny.Dataset(5))]);
        ITrainingData data = new MixtureTrainingData(mixture, tiny.Model.Config);
        Assert.Same(tiny.Tokenizer, data.Tokenizer);
    }

    /// <summary>A copy of a base whose configuration claims more rows.</summary>
    private static string CopyOf(string source, TemporaryFolder output, int moreRows)
    {
        string folder = Directory.CreateDirectory(output.File("padded")).FullName;
        foreach (string file in Directory.EnumerateFiles(source)) File.Copy(file, Path.Combine(folder, Path.GetFileName(file)));
        var config = JsonNode.Parse(File.ReadAllText(Path.Combine(folder, "config.json")))!;
        config["vocab_size"] = (int)config["vocab_size"]! + moreRows;
        File.WriteAllText(Path.Combine(folder, "config.json"), config.ToJsonString());
        return folder;
    }

    private static LlavaArguments Arguments(string output, string flags)
    {
        string training = Path.Combine(Goldens.Roots[0], "training"), common = Path.Combine(training, "common");
        return LlavaCommandLine.Parse(
        [
            "--model_name_or_path", Path.Combine(common, "base-llava"), "--version", "v1", "--data_path", Path.Combine(common, "data", "conv.json"),
            "--image_folder", Path.Combine(common, "data", "images"), "--vision_tower", Path.Combine(common, "clip-tower"), "--mm_projector_type", "mlp2x_gelu",
            "--mm_vision_select_layer", "-2", "--mm_use_im_start_end", "True", "--mm_use_im_patch_token", "True", "--image_aspect_ratio", "pad",
            "--output_dir", output, "--max_steps", "1", "--per_device_train_batch_size", "2", "--save_strategy", "steps", "--save_steps", "1",
            "--model_max_length", "129", "--report_to", "none", .. flags.Split(' '),
        ]);
    }
}
