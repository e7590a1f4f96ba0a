using System.Text.Json;
using System.Text.Json.Nodes;
using Peft.Core;
using Peft.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace Peft.Llava.Tests.Training.Saving;

/// <summary>What a training on a base in transformers' own layout leaves: names and files that transformers and PEFT load.</summary>
public sealed class HuggingFaceFilesTests : IDisposable
{
    private static readonly string Area = Path.Combine(Goldens.Roots[0], "training");
    private static readonly string Peers = Path.Combine(Goldens.Roots[0], "export", "gqa-hf5", "expected");
    private static readonly string[] Processor = ["generation_config.json", "preprocessor_config.json", "processor_config.json", "chat_template.jinja"];

    private readonly TemporaryFolder _base = new();
    private readonly TemporaryFolder _output = new();

    public HuggingFaceFilesTests()
    {
        foreach (string file in Directory.GetFiles(Path.Combine(Area, "common", "base-hf"))) File.Copy(file, _base.File(Path.GetFileName(file)));
        File.Copy(Path.Combine(Area, "common", "clip-tower", "preprocessor_config.json"), _base.File("preprocessor_config.json"));
        foreach (string file in new[] { "processor_config.json", "chat_template.jinja" }) File.Copy(Path.Combine(Peers, file), _base.File(file));
    }

    public void Dispose()
    {
        _base.Dispose();
        _output.Dispose();
    }

    private TrainingOptions Options(TrainableParts parts) => new()
    {
        OutputDirectory = _output.Path, MaxSteps = 2, BatchSize = 2, LearningRate = 0.004, ProjectorLearningRate = 0.002, WarmupSteps = 0, SaveStrategy = SaveStrategy.Steps, SaveSteps = 1,
        LoggingSteps = 1, MaxLength = 132, Trainable = parts,
    };

    private static RecordedSamples Samples(LlavaModel model)
        => new(Area, "v1", Path.Combine(Area, "common", "data", "conv.json"), model.Config, int.MaxValue, new LlavaBatchOptions { MaxLength = 132 });

    private static PeftModel Adapted(LlavaModel model) => model.GetPeftModel(new LoraConfig
    {
        Rank = 8, Alpha = 20, TargetModules = TargetModules.Regex(".*language_model.*\\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"), TaskType = "CAUSAL_LM", BaseModel = "common/base-hf",
    });

    private static IEnumerable<string> Keys(string file)
    {
        using var reader = SafetensorsReader.Open(file);
        return [.. reader.Entries.Keys.Order(StringComparer.Ordinal)];
    }

    [Fact, Trait("Fault", "files-2"), Trait("Fault", "llava-16")]
    public void A_fully_trained_model_has_the_names_of_the_published_checkpoints_and_loads_as_its_user_loads_it()
    {
        using var model = LlavaModel.Load(_base.Path);
        using var data = Samples(model);
        using var trainer = new LLaVATrainer(model, data, Options(TrainableParts.Full()));
        trainer.Train();
        trainer.SaveModel();
        // transformers 5 wrote the base: the published names but for the tower's, which only it reads without "vision_model".
        var published = Keys(_base.File("model.safetensors")).Select(k => k.Replace("vision_tower.", "vision_tower.vision_model.", StringComparison.Ordinal));
        foreach (string folder in new[] { _output.Path, _output.File("checkpoint-1"), _output.File("checkpoint-2") })
        {
            Assert.Equal(published.Order(StringComparer.Ordinal), Keys(Path.Combine(folder, "model.safetensors")));
            using var again = LlavaModel.Load(folder);
            if (folder.EndsWith("-1", StringComparison.Ordinal)) continue;
            foreach (var (name, value) in model.state_dict()) TensorAssert.Equal(value, again.state_dict()[name], name);
        }
        // The configuration stays the base's own: nothing of LLaVA's script gets into it.
        var before = JsonNode.Parse(File.ReadAllText(_base.File("config.json")))!.AsObject();
        var after = JsonNode.Parse(File.ReadAllText(_output.File("config.json")))!.AsObject();
        Assert.Equal(["_name_or_path"], after.Select(f => f.Key).Except(before.Select(f => f.Key)));
        foreach (var (field, value) in before) Assert.True(JsonNode.DeepEquals(value, after[field]), field);

        using var fresh = LlavaModel.Load(_base.Path);
        using var resumed = new LLaVATrainer(fresh, data, Options(TrainableParts.Full()));
        resumed.ResumeFrom(_output.File("checkpoint-1"));
        resumed.Train();
        foreach (var (name, value) in model.state_dict()) TensorAssert.Equal(value, fresh.state_dict()[name], name);
    }

    [Theory, Trait("Fault", "files-3")]
    [InlineData(false)]
    [InlineData(true)]
    public void The_processor_of_the_base_goes_along(bool adapter)
    {
        using var model = LlavaModel.Load(_base.Path);
        using var data = Samples(model);
        using var peft = adapter ? Adapted(model) : null;
        using var trainer = peft is null ? new LLaVATrainer(model, data, Options(TrainableParts.Full())) : new LLaVATrainer(peft, data, Options(TrainableParts.Lora()));
        trainer.Train();
        trainer.SaveModel();
        foreach (string folder in new[] { _output.Path, _output.File("checkpoint-2") })
            foreach (string file in Processor) Assert.Equal(File.ReadAllBytes(_base.File(file)), File.ReadAllBytes(Path.Combine(folder, file)));
    }

    [Fact, Trait("Fault", "files-3")]
    public void A_base_without_processor_settings_gets_those_that_transformers_counts_tokens_by()
    {
        File.Delete(_base.File("processor_config.json"));
        using var model = LlavaModel.Load(_base.Path);
        using var data = Samples(model);
        using var peft = Adapted(model);
        using var trainer = new LLaVATrainer(peft, data, Options(TrainableParts.Lora()));
        trainer.SaveModel();
        var written = JsonNode.Parse(File.ReadAllText(_output.File("processor_config.json")))!.AsObject();
        var recorded = JsonNode.Parse(File.ReadAllText(Path.Combine(Peers, "processor_config.json")))!.AsObject();
        recorded.Remove("image_processor");
        Assert.Equal(recorded.Select(f => f.Key), written.Select(f => f.Key));
        Assert.Equal(model.Config.Vision!.PatchSize, (int)written["patch_size"]!);
    }

    [Theory, Trait("Fault", "files-8")]
    [InlineData(false)]
    [InlineData(true)]
    public void A_tokenizer_model_alone_gets_the_file_that_transformers_5_reads(bool saved)
    {
        string source = Path.Combine(Goldens.Roots[0], "export", "_sources", "gqa", "llava-base");
        foreach (string file in new[] { "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json" }) File.Copy(Path.Combine(source, file), _base.File(file));
        var settings = JsonNode.Parse(File.ReadAllText(_base.File("tokenizer_config.json")))!;
        settings["pad_token"] = "</s>";
        File.WriteAllText(_base.File("tokenizer_config.json"), settings.ToJsonString());
        using var model = LlavaModel.Load(_base.Path);
        if (saved)
        {
            model.SavePretrained(_output.Path);
        }
        else
        {
            using var data = Samples(model);
            using var trainer = new LLaVATrainer(model, data, Options(TrainableParts.Full()));
            trainer.SaveModel();
        }
        var fast = LlamaTokenizer.FromTokenizerJson(_output.File("tokenizer.json"));
        Assert.Equal(LlamaTokenizer.FromFolder(_base.Path, new TokenizerOptions { Behavior = TokenizerBehavior.Fast }).Encode("USER: name the animal"), fast.Encode("USER: name the animal"));
        Assert.StartsWith("\u2581", fast.TokenOf(fast.Encode("USER: name the animal")[1]));
        // The base's own padding stays as well.
        Assert.Equal("</s>", (string)JsonNode.Parse(File.ReadAllText(_output.File("tokenizer_config.json")))!["pad_token"]!);
    }

    /// <summary>PEFT's own run with the projector in <c>modules_to_save</c> is the form: PEFT reads no other file than these two.</summary>
    [Theory, Trait("Fault", "files-9")]
    [InlineData(HuggingFaceKeyStyle.ModuleTree5)]
    [InlineData(HuggingFaceKeyStyle.Classic)]
    public void The_trained_projector_is_in_the_adapter_as_PEFT_loads_it(HuggingFaceKeyStyle style)
    {
        string recorded = Path.Combine(Area, "hf_lora", "output");
        using var model = LlavaModel.Load(_base.Path);
        model.AdapterNames = style;
        using var data = Samples(model);
        using var peft = Adapted(model);
        File.WriteAllText(_output.File(NonLoraTrainables.FileName), "of an earlier save");
        using var trainer = new LLaVATrainer(peft, data, Options(TrainableParts.Lora()));
        trainer.Train();
        trainer.SaveModel();
        if (style == HuggingFaceKeyStyle.ModuleTree5)
            Assert.Equal(Keys(Path.Combine(recorded, "adapter_model.safetensors")), Keys(_output.File("adapter_model.safetensors")));
        var expected = JsonNode.Parse(File.ReadAllText(Path.Combine(recorded, "adapter_config.json")))!.AsObject();
        foreach (var (field, value) in JsonNode.Parse(File.ReadAllText(_output.File("adapter_config.json")))!.AsObject())
            Assert.True(JsonNode.DeepEquals(expected[field], value), $"{field}: expected {expected[field]?.ToJsonString()}, got {value?.ToJsonString()}.");
        Assert.False(File.Exists(_output.File(NonLoraTrainables.FileName)));

        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        using var batch = data.Batch([0, 1, 2]);
        double trained = model.LossSum(batch).Sum.ToDouble();
        foreach (string folder in new[] { _output.Path, _output.File("checkpoint-2") })
        {
            using var fresh = LlavaModel.Load(_base.Path);
            fresh.AdapterNames = style;
            using var loaded = PeftModel.Load(fresh, folder);
            Assert.Equal(trained, fresh.LossSum(batch).Sum.ToDouble(), 1e-5 * trained);
            using var plain = LlavaModel.Load(_base.Path);
            plain.AdapterNames = style;
            using var again = TrainedFolder.Load(plain, folder);
            Assert.Equal(trained, plain.LossSum(batch).Sum.ToDouble(), 1e-5 * trained);
        }
    }

    /// <summary>torch's optimizers know parameters by their place: PEFT's own run names the places.</summary>
    [Fact, Trait("Fault", "files-6")]
    public void The_optimizers_state_stands_in_the_order_of_transformers_model()
    {
        using var model = LlavaModel.Load(_base.Path);
        using var data = Samples(model);
        using var peft = Adapted(model);
        using var trainer = new LLaVATrainer(peft, data, Options(TrainableParts.Lora()) with { ProjectorLearningRate = null });
        trainer.Train();
        using var scope = NewDisposeScope();
        var written = (PickleDictionary)PickleFile.ReadObject(_output.File("checkpoint-2/optimizer.pt"))!;
        using var golden = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(Area, "hf_lora", "case.json")));
        var names = golden.RootElement.GetProperty("parameter_groups").EnumerateArray().SelectMany(g => g.GetProperty("names").EnumerateArray())
            .Select(n => n.GetString()!.Replace(".modules_to_save.default", "", StringComparison.Ordinal)).ToList();
        var state = (PickleDictionary)written["state"]!;
        Assert.Equal(Enumerable.Range(0, names.Count).Select(i => (object)(long)i), state.Keys);
        var own = trainer.Optimizer.State;
        for (int i = 0; i < names.Count; i++) TensorAssert.Equal(own[$"exp_avg/{names[i]}"], (Tensor)((PickleDictionary)state[(long)i]!)["exp_avg"]!, names[i]);
    }

    [Fact, Trait("Fault", "files-9")]
    public void A_run_with_the_projector_in_the_adapter_resumes()
    {
        using var whole = LlavaModel.Load(_base.Path);
        using var data = Samples(whole);
        Dictionary<string, float[]> Trained(PeftModel peft) => peft.TrainableParameters().ToDictionary(p => p.Name, p => p.Parameter.data<float>().ToArray());
        manual_seed(5);
        using var peft = Adapted(whole);
        using var trainer = new LLaVATrainer(peft, data, Options(TrainableParts.Lora()));
        trainer.Train();

        using var fresh = LlavaModel.Load(_base.Path);
        using var other = Adapted(fresh);
        using var resumed = new LLaVATrainer(other, data, Options(TrainableParts.Lora()));
        resumed.ResumeFrom(_output.File("checkpoint-1"));
        resumed.Train();
        var expected = Trained(peft);
        var got = Trained(other);
        Assert.Contains("base_model.model.model.multi_modal_projector.linear_1.weight", expected.Keys);
        Assert.Equal(expected.Keys, got.Keys);
        foreach (var (name, values) in expected) Assert.Equal(values, got[name]);
    }
}
