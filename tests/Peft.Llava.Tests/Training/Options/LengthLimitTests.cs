using System.Text.Json.Nodes;
using Peft.Core;
using Peft.Testing;
using Xunit;

namespace Peft.Llava.Tests.Training;

/// <summary>The longest sequence where nothing is said, and that there is one limit.</summary>
public sealed class LengthLimitTests
{
    private static LlavaTrainingData Data(TinyLlava tiny, LlavaConfig config, int? tokenizerLimit, int? maxLength = null)
    {
        var processor = tiny.Processor.WithTokenizer(tiny.Tokenizer.WithModelMaxLength(tokenizerLimit));
        return new LlavaTrainingData(new LlavaDataset(TinyLlava.Samples(3), new SampleEncoder(processor)), config, maxLength);
    }

    private static LlavaConfig Without(LlavaConfig config)
    {
        var document = config.ToJson();
        document.Remove("tokenizer_model_max_length");
        return LlavaConfig.Parse(document).WithVision(config.Vision!);
    }

    [Fact, Trait("Fault", "llava-15")]
    public void The_limit_is_the_models_then_the_tokenizers_then_the_positions()
    {
        using var tiny = TinyLlava.Create();
        var config = tiny.Model.Config;
        Assert.Null(new TrainingOptions().MaxLength);
        Assert.Equal(512, LlavaCommandLine.Parse(["--model_name_or_path", "m", "--data_path", "d", "--output_dir", "o"]).Training.MaxLength);
        Assert.Equal(70, Data(tiny, config.With("tokenizer_model_max_length", 70), 99).MaxLength);
        Assert.Equal(99, Data(tiny, Without(config), 99).MaxLength);
        Assert.Equal(256, Data(tiny, Without(config), null).MaxLength);
        Assert.Equal(256, Data(tiny, Without(config), 1_000_000).MaxLength);
        Assert.Equal(40, Data(tiny, config, 99, 40).MaxLength);
    }

    /// <summary>The README's program on a model whose pictures have more features than 512 tokens leave room for.</summary>
    [Fact, Trait("Fault", "llava-15")]
    public void A_program_that_says_nothing_trains_on_the_models_length()
    {
        using var folder = new TemporaryFolder();
        // 24 x 24 patches, as LLaVA 1.5 has: 576 features per picture.
        using var shape = TinyLlava.Create();
        var vision = shape.Model.Config.Vision! with { ImageSize = 24 * 7 };
        var config = Without(shape.Model.Config).With("max_position_embeddings", 2048).WithVision(vision);
        using var model = LlavaModel.CreateRandom(config, 3);
        var processor = new LlavaProcessor(shape.Tokenizer.WithModelMaxLength(2048), new ClipImageProcessor(ImageProcessorConfig.Clip(vision.ImageSize), AspectPolicy.Pad), readImage: shape.Processor.ReadImage);
        using var peft = model.GetPeftModel(new LoraConfig { Rank = 3, Alpha = 7, TargetModules = (string[])["q_proj"] });
        using var trainer = new LLaVATrainer(peft, new LlavaDataset(TinyLlava.Samples(2), new SampleEncoder(processor)), new TrainingOptions
        {
            OutputDirectory = folder.Path, MaxSteps = 1, BatchSize = 2, SaveStrategy = SaveStrategy.None,
        });
        trainer.Train(TestContext.Current.CancellationToken);
        Assert.Equal(2048, trainer.MaxLength);
        trainer.SaveModel();
        Assert.Equal(2048, (int)JsonNode.Parse(File.ReadAllText(folder.File("config.json")))!["tokenizer_model_max_length"]!);
    }

    [Fact, Trait("Fault", "llava-15")]
    public void The_limit_holds_after_the_picture_is_expanded_whatever_the_tokenizer_has()
    {
        using var tiny = TinyLlava.Create();
        using var whole = Data(tiny, tiny.Model.Config, null, 250).Batch([0]);
        // A tokenizer of 20 tokens would cut the text, the picture counted as one.
        using var same = Data(tiny, tiny.Model.Config, 20, 250).Batch([0]);
        Assert.Equal(whole.Layout.TokenCount, same.Layout.TokenCount);
        using var cut = Data(tiny, tiny.Model.Config, 20, (int)whole.Layout.TokenCount - 1).Batch([0]);
        Assert.Equal(whole.Layout.TokenCount - 1, cut.Layout.TokenCount);
    }

    [Fact, Trait("Fault", "llava-15")]
    public void Two_limits_are_refused()
    {
        using var folder = new TemporaryFolder();
        using var tiny = TinyLlava.Create();
        using var peft = tiny.Model.GetPeftModel(new LoraConfig { Rank = 3, Alpha = 7, TargetModules = (string[])["q_proj"] });
        var options = new TrainingOptions { OutputDirectory = folder.Path, MaxLength = 77 };
        var e = Assert.Throws<TrainingOptionsException>(() => new LLaVATrainer(peft, Data(tiny, tiny.Model.Config, null, 76), options));
        Assert.Contains("MaxLength is 77, and the data were made for 76 tokens; give both the same, or leave MaxLength null", e.Message, StringComparison.Ordinal);
        using var trainer = new LLaVATrainer(peft, Data(tiny, tiny.Model.Config, null, 76), options with { MaxLength = null });
        Assert.Equal((76, 76), (trainer.MaxLength, trainer.Options.MaxLength));
    }
}
