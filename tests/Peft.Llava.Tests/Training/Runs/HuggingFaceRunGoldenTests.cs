using System.Text.Json;
using System.Text.Json.Nodes;
using Peft.Core;
using Peft.Llava;
using Peft.Testing;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Training;

/// <summary>Runs of transformers' LLaVA with PEFT and Trainer, which weighs by supervised tokens as our default does.</summary>
public sealed class HuggingFaceRunGoldenTests
{
    public static IEnumerable<TheoryDataRow<string>> Cases => Goldens.Rows("training",
        c => c.Json.TryGetProperty("settings", out var s) && s.TryGetProperty("training_arguments", out _));

    [Theory, MemberData(nameof(Cases)), Trait(Goldens.Trait, "training")]
    public void Steps_weights_and_files_equal_transformers(string folder)
    {
        var golden = new GoldenCase(folder);
        var settings = golden.Json.GetProperty("settings");
        var steps = JsonDocument.Parse(File.ReadAllBytes(golden.PathOf(golden.Json.GetProperty("steps_file").GetString()!))).RootElement.EnumerateArray().ToList();
        string output = Directory.CreateTempSubdirectory("peft-hf-").FullName;
        try
        {
            using var model = LlavaModel.Load(Path.Combine(golden.AreaFolder, settings.GetProperty("base").GetString()!));
            using var peft = model.GetPeftModel(Config(settings));
            LoadInitial(golden, peft);
            int length = settings.GetProperty("model_max_length").GetInt32();
            var ids = steps.SelectMany(s => s.GetProperty("micro").EnumerateArray()).SelectMany(m => m.GetProperty("ids").EnumerateArray()).Select(i => i.GetString()!);
            using var data = new RecordedSamples(golden.AreaFolder, "v1", Path.Combine(golden.AreaFolder, "common", "data", "conv.json"), model.Config, int.MaxValue,
                new LlavaBatchOptions { MaxLength = length }, ids);
            var watch = new Comparison(golden, steps, peft);
            using var trainer = new LLaVATrainer(peft, data, Options(settings.GetProperty("training_arguments"), output, length), watch);
            CompareGroups(golden, trainer);
            Assert.Equal(golden.Json.GetProperty("warmup_steps").GetInt32(), trainer.WarmupSteps);
            trainer.Train();
            Assert.Equal(steps.Count, watch.Count);
            trainer.SaveModel();
            CompareOutput(golden, output);
        }
        finally
        {
            Directory.Delete(output, recursive: true);
        }
    }

    private static LoraConfig Config(JsonElement settings) => new()
    {
        Rank = settings.GetProperty("lora_r").GetInt32(),
        Alpha = settings.GetProperty("lora_alpha").GetDouble(),
        TargetModules = TargetModules.Regex(settings.GetProperty("target_modules").GetString()!),
        ModulesToSave = [.. settings.GetProperty("modules_to_save").EnumerateArray().Select(m => m.GetString()!)],
        TaskType = "CAUSAL_LM",
        BaseModel = settings.GetProperty("base").GetString(),
    };

    private static TrainingOptions Options(JsonElement a, string output, int length) => new()
    {
        OutputDirectory = output,
        MaxSteps = a.GetProperty("max_steps").GetInt32(),
        BatchSize = a.GetProperty("per_device_train_batch_size").GetInt32(),
        AccumulationSteps = a.GetProperty("gradient_accumulation_steps").GetInt32(),
        LearningRate = a.GetProperty("learning_rate").GetDouble(),
        WeightDecay = a.GetProperty("weight_decay").GetDouble(),
        MaxGradNorm = a.GetProperty("max_grad_norm").GetDouble(),
        WarmupSteps = a.GetProperty("warmup_steps").GetInt32(),
        Schedule = LearningRateSchedule.ParseKind(a.GetProperty("lr_scheduler_type").GetString()!),
        Seed = a.GetProperty("seed").GetInt64(),
        Ordering = SampleOrdering.Sequential,
        SaveStrategy = SaveStrategy.None,
        MaxLength = length,
    };

    private static void LoadInitial(GoldenCase golden, PeftModel peft)
    {
        using var noGrad = no_grad();
        using var scope = NewDisposeScope();
        using var reader = golden.Tensors("initial.safetensors");
        var trained = peft.TrainableParameters().ToDictionary(p => p.Name, p => p.Parameter);
        Assert.Equal(reader.Entries.Keys.Order(StringComparer.Ordinal), trained.Keys.Order(StringComparer.Ordinal));
        foreach (var (name, parameter) in trained) parameter.copy_(reader.Load(name));
    }

    private static void CompareGroups(GoldenCase golden, LLaVATrainer trainer)
    {
        var expected = golden.Json.GetProperty("parameter_groups").EnumerateArray().ToList();
        Assert.Equal(expected.Count, trainer.Groups.Count);
        for (int i = 0; i < expected.Count; i++)
        {
            Assert.Equal(expected[i].GetProperty("lr").GetDouble(), trainer.Groups[i].BaseRate);
            Assert.Equal(expected[i].GetProperty("weight_decay").GetDouble(), trainer.Groups[i].WeightDecay);
            Assert.Equal(expected[i].GetProperty("names").EnumerateArray().Select(n => n.GetString()).Order(StringComparer.Ordinal),
                trainer.Groups[i].Parameters.Select(p => p.Name).Order(StringComparer.Ordinal));
        }
    }

    private static void CompareOutput(GoldenCase golden, string output)
    {
        foreach (var file in golden.Json.GetProperty("output_files").EnumerateArray().Select(f => f.GetString()!))
        {
            string recorded = golden.PathOf(Path.Combine("output", file)), own = Path.Combine(output, file);
            Assert.True(File.Exists(own), $"{file} was not written.");
            if (file.EndsWith(".safetensors", StringComparison.Ordinal))
            {
                using var expected = SafetensorsReader.Open(recorded);
                using var got = SafetensorsReader.Open(own);
                using var scope = NewDisposeScope();
                Assert.Equal(expected.Entries.Keys.Order(StringComparer.Ordinal), got.Entries.Keys.Order(StringComparer.Ordinal));
                var recommended = golden.Json.GetProperty("tolerance").GetProperty("recommended");
                WeightKinds.Compare(golden, file, expected, got.Entries.Keys.ToDictionary(k => k, got.Load), recommended.GetProperty("weights").GetProperty("weights_last.safetensors"),
                    recommended.GetProperty("share_of_elements_allowed_outside_atol").GetDouble());
            }
            else if (file.EndsWith(".json", StringComparison.Ordinal))
            {
                // Ours writes the fields that every PEFT knows; the recorded, newer one adds its own at their defaults.
                var expected = JsonNode.Parse(File.ReadAllBytes(recorded))!.AsObject();
                foreach (var (field, value) in JsonNode.Parse(File.ReadAllBytes(own))!.AsObject())
                    Assert.True(JsonNode.DeepEquals(expected[field], value), $"{file} {field}: expected {expected[field]?.ToJsonString()}, got {value?.ToJsonString()}.");
            }
        }
    }

    private sealed class Comparison(GoldenCase golden, List<JsonElement> steps, PeftModel peft) : ITrainingObserver
    {
        private readonly JsonElement _tolerance = golden.Json.GetProperty("tolerance").GetProperty("recommended");

        public int Count { get; private set; }

        public TrainingVerdict OnStep(StepReport report)
        {
            Count++;
            var expected = steps[report.Step - 1];
            Assert.Equal(expected.GetProperty("micro").EnumerateArray().Select(m => string.Join(' ', m.GetProperty("ids").EnumerateArray().Select(i => i.GetString()))),
                report.SampleIds.Select(ids => string.Join(' ', ids)));
            Assert.Equal(expected.GetProperty("micro").EnumerateArray().Sum(m => m.GetProperty("supervised_tokens").GetInt64()), report.SupervisedTokens);
            Assert.Equal(expected.GetProperty("lr").EnumerateArray().Select(l => l.GetDouble()), report.Rates, (a, b) => Math.Abs(a - b) <= 1e-13 * Math.Abs(a));
            TensorAssert.Close(expected.GetProperty("loss").GetDouble(), report.Loss, _tolerance.GetProperty("loss").GetProperty("atol").GetDouble(), 0,
                $"step {report.Step} loss", IsaSpread.Of(golden, "loss"));
            TensorAssert.Close(expected.GetProperty("grad_norm").GetDouble(), report.GradNorm, 0, _tolerance.GetProperty("grad_norm").GetProperty("rtol").GetDouble(),
                $"step {report.Step} gradient norm", IsaSpread.Of(golden, "grad_norm"));
            string file = report.Step == report.TotalSteps ? "weights_last.safetensors" : $"weights_{report.Step:0000}.safetensors";
            if (!File.Exists(golden.PathOf(file))) return TrainingVerdict.Continue;
            using var reader = golden.Tensors(file);
            var weights = _tolerance.GetProperty("weights");
            WeightKinds.Compare(golden, file, reader, peft.NamedParameters().ToDictionary(p => p.Name, p => (Tensor)p.Parameter),
                weights.TryGetProperty(file, out var own) ? own : weights.GetProperty("weights_last.safetensors"),
                _tolerance.GetProperty("share_of_elements_allowed_outside_atol").GetDouble());
            return TrainingVerdict.Continue;
        }
    }
}
