using System.Text.Json.Nodes;
using Peft.Core;
using Peft.Testing;
using Xunit;

namespace Peft.Llava.Tests.Training;

/// <summary>What a training refuses before it begins, and where.</summary>
public sealed class RefusalTests
{
    public static IEnumerable<TheoryDataRow<string>> Runs => Goldens.Rows("training", c => c.Json.TryGetProperty("argv", out _)).Take(1);

    [Fact]
    public void A_projector_is_not_trained_where_there_is_none()
    {
        using var run = new TinyRun();
        using var language = LlavaModel.CreateRandom(
            LlavaConfig.Parse(
                new JsonObject
                {
                    ["architectures"] = new JsonArray("LlamaForCausalLM"), ["model_type"] = "llama", ["vocab_size"] = 31, ["hidden_size"] = 24, ["intermediate_size"] = 40, ["num_hidden_layers"] = 1,
                    ["num_attention_heads"] = 3, ["max_position_embeddings"] = 64, ["rms_norm_eps"] = 1e-5, ["bos_token_id"] = 1, ["eos_token_id"] = 2,
                },
                "language"),
            seed: 4);
        using var peft = language.GetPeftModel(new LoraConfig { Rank = 2, Alpha = 3, TargetModules = ["q_proj"] });
        var options = run.Options with { Trainable = TrainableParts.Lora(projector: true) };
        Assert.EndsWith("the projector is to be trained, but the model has none; load a LLaVA, or set Trainable to TrainableParts.Lora(projector: false).",
            Assert.Throws<TrainingOptionsException>(() => new LLaVATrainer(peft, run, options)).Message, StringComparison.Ordinal);
    }

    [Theory, Trait(Goldens.Trait, "training"), MemberData(nameof(Runs))]
    public void The_first_LLaVAs_format_is_refused_with_what_to_give(string folder)
    {
        string output = Directory.CreateTempSubdirectory("peft-refused-").FullName;
        try
        {
            var arguments = new GoldenRun(folder, output).Arguments;
            using var tiny = TinyLlava.Create();
            Assert.Contains("--version v0, the default, adds a [PAD] row to a vocabulary without a padding token, and the base's tokenizer has none; give the template of your base, such as --version v1 or --version plain",
                Assert.Throws<TrainingOptionsException>(() => LlavaRecipe.PrepareData(arguments with { Model = arguments.Model with { Version = "v0" } }, tiny.Model)).Message, StringComparison.Ordinal);
        }
        finally
        {
            Directory.Delete(output, recursive: true);
        }
    }

    [LinuxFact]
    public void An_event_file_that_cannot_be_made_is_named()
    {
        using var observer = new TensorBoardObserver("/proc");
        Assert.StartsWith("/proc/events.out.tfevents.", Assert.Throws<FileWriteException>(() => observer.OnStart(Observing.Reports.Start)).Message, StringComparison.Ordinal);
    }
}
