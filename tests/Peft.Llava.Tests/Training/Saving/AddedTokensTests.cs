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
